"""What ``recap record``, ``rollout`` and ``policy evaluate --robot`` share: options for live sessions."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Annotated

import typer

from collectors.gen3_tasks import split_task
from pipeline.errors import InputError
from pipeline.site_config import SIMULATED_ROBOT, SiteConfig

TokenFileOption = Annotated[
    Path | None,
    typer.Option(help="The policy server's token; default: the variable RECAP_POLICY_TOKEN."),
]
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


def require_known_task(site: SiteConfig, task: str) -> None:
    """Raises ``InputError`` for a task that ``recap.toml`` does not list, or that the simulation lacks.

    A mistyped task would be recorded as another one. Where the file lists none, a real arm takes any.
    """
    if site.tasks and task not in site.tasks:
        near = difflib.get_close_matches(task, site.tasks, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"unknown task {task!r}; {hint}{site.path or 'recap.toml'} lists {', '.join(site.tasks)}; add a "
            "new one there"
        )
    if site.robot.type == SIMULATED_ROBOT:
        split_task(task)


def say_starting() -> None:
    """One line for a person who waits: LeRobot and torch take seconds to load."""
    if sys.stderr.isatty():
        print("starting …", file=sys.stderr, flush=True)
