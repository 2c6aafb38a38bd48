"""What the operator sees in the terminal while recording: who drives, what is wrong, which keys there are.

On a terminal it is a panel that is redrawn from a thread of its own, so that a slow terminal delays
nothing; it only writes, the keys are ``collectors.operator_keys``'s. Elsewhere (a log file, a pipe) it is
one plain line for each event, and one every few seconds while an episode runs. Nothing depends on colour
alone.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live

from collectors.live_panel import ALONE, driver_words, free_disk, panel, problems, progress_words
from collectors.operator_keys import KEY_HELP
from collectors.telemetry import Phase, Snapshot

_log = logging.getLogger(__name__)
_REDRAWS_PER_S = 8.0
_STOP_TIMEOUT_S = 2.0  # a terminal that takes nothing more must not keep the session from ending


class LiveView:
    """A ``collectors.telemetry.Telemetry`` for people; a context manager that owns the panel."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        key_help: str = KEY_HELP,
        line_every_s: float = 5.0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``console`` is stdout by default. ``line_every_s`` paces the plain lines of a running episode."""
        self._console = console or Console(file=sys.stdout, highlight=False)
        self._key_help = key_help
        self._line_every_s = line_every_s
        self._clock_s = clock_s
        self._snapshot: Snapshot | None = None
        self._next_line_s = 0.0
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def _has_screen(self) -> bool:
        """Whether lines can be drawn over; an editor's built-in shell, for one, is a terminal that cannot."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def __enter__(self) -> Self:
        """Opens the panel where there is a terminal."""
        if self._has_screen:
            self._thread = threading.Thread(target=self._show, name="live view", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last panel on the screen and the cursor as it was."""
        if self._thread is not None:
            self._leaving.set()
            self._thread.join(_STOP_TIMEOUT_S)
            self._thread = None

    def update(self, snapshot: Snapshot) -> None:
        """Shows the newest state; on a terminal it is drawn later, by another thread."""
        before, self._snapshot = self._snapshot, snapshot
        if not self._has_screen:
            self._say_what_changed(before, snapshot)

    def images(self, observation: Mapping[str, Any]) -> None:
        """A terminal shows no images."""

    def _show(self) -> None:
        """The thread: redraws what has changed; what is printed meanwhile appears above the panel."""
        try:
            with Live(console=self._console, get_renderable=self._draw, auto_refresh=False) as live:
                while not self._leaving.wait(1 / _REDRAWS_PER_S):
                    live.refresh()
        except OSError as error:  # the terminal is gone
            _log.warning("the live view has ended: %s", error)

    def _draw(self) -> RenderableType:
        return "" if self._snapshot is None else panel(self._snapshot, self._key_help)

    def _say_what_changed(self, before: Snapshot | None, now: Snapshot) -> None:
        lines = _events(before, now)
        due = now.phase is Phase.RUNNING and self._clock_s() >= self._next_line_s
        if due and not lines:
            lines = [f"{progress_words(now)} · {driver_words(now)}"]
        if lines:
            self._next_line_s = self._clock_s() + self._line_every_s
        for line in lines:
            print(line, file=self._console.file, flush=True)


def _events(before: Snapshot | None, now: Snapshot) -> list[str]:
    """A line for each thing that is different, the most important first."""
    lines = []
    known = problems(before) if before is not None else []
    present = problems(now)
    lines += [f"WARNING: {problem}" for problem in present if problem not in known]
    lines += [f"over: {problem}" for problem in known if problem not in present]
    if before is None and not now.can_take_over:
        lines.append(ALONE)
    if before is None or now.phase is not before.phase or now.episode != before.episode:
        of_wanted = "" if now.wanted is None else f" of {now.wanted}"
        where = f"episode {now.episode}, {now.done}{of_wanted} kept"
        lines.append(f"{now.phase.value}: {where} · {now.task} · {free_disk(now)}")
    elif now.phase is Phase.RUNNING and now.driver is not before.driver:
        lines.append(f"{driver_words(now)} · {progress_words(now)}")
    said = before.message if before is not None else ""
    if now.message and now.message != said and now.message not in present:
        lines.append(now.message)
    return lines
