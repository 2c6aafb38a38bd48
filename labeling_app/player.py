"""The player in the browser: all cameras in step, a timeline, answers and marks. A Streamlit component.

The browser gets a description of an episode with the addresses of its films, and sends one message per
answer. Nothing that people typed is put into the component's HTML, CSS or JavaScript: it goes as data, and
the script shows it as text. Films go by URL, from Streamlit's own store of media, which answers range
requests.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v2.types import ComponentRenderer
from streamlit.runtime import get_instance

from labeling_app.driving import DRIVERS
from labeling_app.films import Film
from pipeline.episode import Source

PLAYER = "player"
FILES = Path(__file__).with_name("player_files")
SCRIPTS = ("film.js", "timeline.js", "remarks.js", "player.js")


@cache
def player_component() -> ComponentRenderer:
    """The component, registered with Streamlit."""
    return st.components.v2.component(
        "recap_player",
        html='<div class="rc"></div>',
        css=(FILES / "player.css").read_text(encoding="utf-8"),
        js="\n".join((FILES / name).read_text(encoding="utf-8") for name in SCRIPTS),
        # Streamlit's own shortcuts look at what has the focus, and a shadow root would hide our text fields.
        isolate_styles=False,
    )


def show_player(data: dict[str, Any], heard: Callable[[], None] | None = None) -> None:
    """Draws the player. ``heard`` runs when an answer has come; :func:`last_message` is what was said."""
    # A new connection, as after a restart of the server, must reach a player that waits for a reply.
    session = st.session_state.setdefault("session", secrets.token_hex(8))
    player_component()(key=PLAYER, data={**data, "session": session}, on_said_change=heard or (lambda: None))


def last_message() -> object:
    """What the browser has just said, as it came: to be checked before use. ``None``: nothing."""
    state = st.session_state.get(PLAYER)
    return None if state is None else state.get("said")


def film_data(film: Film | None, problem: str | None = None) -> dict[str, Any]:
    """The part of the player's data that shows a film; without one, ``problem`` says why."""
    if film is None:
        return {"cameras": [], "spans": [], "rate_hz": 1.0, "length": 1, "problem": problem}
    return {
        "cameras": [
            {
                "name": camera.camera,
                "url": _address(film.folder / camera.file, f"film-{number}"),
                "width": camera.width,
                "height": camera.height,
            }
            for number, camera in enumerate(film.cameras)
        ],
        "spans": [
            {
                "start": span.start,
                "end": span.end,
                "driver": DRIVERS[Source(span.source)].name,
                "words": DRIVERS[Source(span.source)].words,
            }
            for span in film.spans
        ],
        "rate_hz": film.rate_hz,
        "length": film.length,
        "problem": None,
    }


def curve(
    name: str, values: Sequence[float], *, low: float, high: float, threshold: float | None = None
) -> dict[str, Any]:
    """A curve under the film: one value a frame, drawn between ``low`` and ``high``."""
    return {
        "name": name,
        "values": [round(float(value), 4) for value in values],
        "low": low,
        "high": high,
        "threshold": threshold,
    }


def _address(path: Path, place: str) -> str:
    """The URL of a file. It is read now and forgotten once no page shows it, so memory stays flat."""
    url = get_instance().media_file_mgr.add(str(path), "video/mp4", place)
    base = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{base}{url}" if base else url
