"""What ``recap record`` and ``recap rollout`` share: options for sessions with a person at the arm."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

PersonOption = Annotated[
    str | None,
    typer.Option(help="Your name, as episodes keep it; default: operator in [defaults] of recap.toml."),
]
RateOption = Annotated[
    float | None,
    typer.Option(help="Control steps a second; default: rate_hz in [defaults] of recap.toml."),
]
MaxSecondsOption = Annotated[float, typer.Option(help="An episode ends by itself after this time.")]
AutoStartOption = Annotated[
    float | None,
    typer.Option(
        help="Seconds after which the next episode starts by itself; default: it waits for the key.", min=0
    ),
]
ViewOption = Annotated[bool, typer.Option("--view", help="Open Rerun (needs the extra viz).")]


def say_starting() -> None:
    """One line for a person who waits: LeRobot and torch take seconds to load."""
    if sys.stderr.isatty():
        print("starting …", file=sys.stderr, flush=True)
