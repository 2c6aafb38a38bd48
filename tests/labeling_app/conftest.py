"""What tests of the app's pages share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import streamlit as st
import streamlit.config

from labeling_app import opened
from pipeline.workspace import Workspace


@pytest.fixture
def on_loopback(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server's address and command line, as ``recap label`` gives them; no wait for locks."""
    monkeypatch.setattr(sys, "argv", ["app.py", "--workspace", str(workspace.root)])
    monkeypatch.setattr(opened, "BUSY_TIMEOUT_S", 0.2)
    streamlit.config.set_option("server.address", "127.0.0.1")
    yield
    st.cache_resource.clear()
    st.cache_data.clear()
