"""The app's pages as Streamlit's own test harness runs them: no browser, no JavaScript."""

from __future__ import annotations

import json
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from labeling_app import on_screen
from labeling_app.launch import APP

# The page, with a button in place of the player's messages: without JavaScript there is nobody to send them.
SPEAKING = """
import streamlit as st
from labeling_app import app, on_screen
st.button("say", key="say", on_click=on_screen.heard)
app.main()
"""
ONE_PAGE = """
from labeling_app import adjudication_page, dashboard_page, iterations_page, review_page
from labeling_app.app import careful
from labeling_app.identity import Person
from labeling_app.opened import opened
careful({page}_page.draw, opened(), Person("Ana", {reviewer}))
"""


def page_of(name: str | None = "Ana", *, script: str | None = None, **parameters: str) -> AppTest:
    """The label page, or a script, as it looks after the first run."""
    page = (
        AppTest.from_file(str(APP), default_timeout=60)
        if script is None
        else AppTest.from_string(script, default_timeout=60)
    )
    if name is not None:
        page.query_params["name"] = name
    for key, value in parameters.items():
        page.query_params[key] = value
    return clean(page.run())


def clean(page: AppTest) -> AppTest:
    assert not page.exception, page.exception
    return page


def shown(page: AppTest) -> dict[str, Any]:
    """What the player was given."""
    (player,) = page.get("bidi_component")
    data: dict[str, Any] = json.loads(player.proto.json)
    return data


def errors(page: AppTest) -> str:
    return " ".join(error.value for error in page.error).replace("\\", "")


def say(page: AppTest, monkeypatch: pytest.MonkeyPatch, answer: str, **said: Any) -> AppTest:
    """As if the player had sent an answer to what it shows."""
    message = {"token": shown(page)["token"], "answer": answer, **said}
    monkeypatch.setattr(on_screen, "last_message", lambda: message)
    return clean(page.button(key="say").click().run())
