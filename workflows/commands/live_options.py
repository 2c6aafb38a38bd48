"""What ``recap record``, ``rollout`` and ``policy evaluate --robot`` share: options for live sessions."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

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
    typer.Option(help="Control steps a second; default: rate_hz in [defaults] of recap.toml, else 10."),
]
MAX_SECONDS = 300.0
MaxSecondsOption = Annotated[
    float | None,
    typer.Option(help="An episode ends by itself after this time.", show_default=f"{MAX_SECONDS:g}"),
]
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


def refuse_for_scripted(
    person: str | None, max_seconds: float | None, auto_start: float | None, view: bool
) -> None:
    """Raises ``InputError`` for options that a session of scripted hands would take and not heed."""
    given = {
        "--person": person,
        "--max-seconds": max_seconds,
        "--auto-start": auto_start,
        "--view": view or None,
    }
    for option, value in given.items():
        if value is not None:
            raise InputError(
                f"{option} is for a person at the arm: leave it out, or choose --operator keyboard"
            )


def say_starting() -> None:
    """One line for a person who waits: LeRobot and torch take seconds to load."""
    if sys.stderr.isatty():
        # Over what was typed until now, which the terminal has shown.
        print("\r\x1b[Kstarting …", file=sys.stderr, flush=True)


@contextlib.contextmanager
def without_echo(fd: int = 0) -> Iterator[None]:
    """The terminal does not show what is typed meanwhile; ``fd`` is it, by default standard input.

    Keys that are pressed before the session reads them would stand among its lines. Does nothing where there
    is no terminal, or where it belongs to another job of the shell. Afterwards it is as before.
    """
    try:
        before = termios.tcgetattr(fd)
        with contextlib.suppress(OSError):  # not this process's controlling terminal: no jobs to respect
            if os.tcgetpgrp(fd) != os.getpgrp():
                before = []
    except (termios.error, OSError):
        before = []
    if not before:
        yield
        return
    local_flags = 3
    silent = [*before[:local_flags], before[local_flags] & ~termios.ECHO, *before[local_flags + 1 :]]
    termios.tcsetattr(fd, termios.TCSANOW, silent)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error, OSError):  # the terminal may be gone
            termios.tcsetattr(fd, termios.TCSANOW, before)


def run_live(workspace: Path, task: str, max_seconds: float | None, **options: Any) -> None:
    """Records a person at the arm, or who watches a policy; ``options`` are those of ``LiveOptions``."""
    say_starting()
    with without_echo():
        from workflows.live_recording import LiveOptions, record_live

        seconds = MAX_SECONDS if max_seconds is None else max_seconds
        record_live(workspace, LiveOptions(task, max_seconds=seconds, **options))
