"""What all pages of one server share: the workspace, its label store, its episodes, its films."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from labeling_app.catalogue import Catalogue, workspace_at
from labeling_app.film_shelf import FilmShelf
from pipeline.labels import LabelStore
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace

BUSY_TIMEOUT_S = 10.0  # a person looks at the page: better a message soon


@dataclass(frozen=True)
class Opened:
    """One workspace as this server serves it; may be used from many threads."""

    workspace: Workspace
    store: LabelStore
    catalogue: Catalogue
    films: FilmShelf


def opened() -> Opened:
    """The workspace that the command line names: no page can ask for another.

    Raises ``InputError`` if there is none.
    """
    parser = argparse.ArgumentParser(prog="labeling_app")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    return _opened(parser.parse_args(sys.argv[1:]).workspace.resolve())


@st.cache_resource(show_spinner="Looking for episodes …")
def _opened(root: Path) -> Opened:
    workspace = workspace_at(root)
    rules = load_site_config(workspace.config_path).labels
    store = LabelStore(workspace.labels_path, rules=rules, busy_timeout_s=BUSY_TIMEOUT_S)
    return Opened(workspace, store, Catalogue(workspace, store), FilmShelf(workspace.cache / "films"))
