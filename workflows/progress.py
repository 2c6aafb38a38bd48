"""How long work says how far it is: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Progress(Protocol):
    """What a step calls now and then: ``done`` of ``total``, and a word on what it is doing."""

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Says that ``done`` of ``total`` units are finished."""


class ProgressDisplay(Protocol):
    """Shows several pieces of work at once; a context manager. ``key`` tells them apart."""

    def __enter__(self) -> Self:
        """Begins to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops showing."""

    def start(self, key: str, title: str) -> None:
        """Work ``key`` begins."""

    def update(self, key: str, done: int, total: int, message: str = "") -> None:
        """Work ``key`` is at ``done`` of ``total``."""

    def finish(self, key: str, note: str = "") -> None:
        """Work ``key`` has ended."""

    def say(self, text: str) -> None:
        """One line for the person, above the bars."""


def progress_display(stream: TextIO | None = None) -> ProgressDisplay:
    """Bars where ``stream`` (default: standard error) is a terminal, lines where it is not."""
    stream = stream if stream is not None else sys.stderr
    return BarDisplay(stream) if stream.isatty() else LineDisplay(stream)


def reporter(display: ProgressDisplay, key: str) -> Progress:
    """A :class:`Progress` that moves one bar of ``display``, for work in the same process."""

    def report(done: int, total: int, message: str = "") -> None:
        display.update(key, done, total, message)

    return report


class _Display:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LineDisplay(_Display):
    """One line when work begins, at each quarter, when it is long silent, and at its end."""

    def __init__(
        self, stream: TextIO, silence_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``silence_s``: seconds after which a line is due though no quarter was passed."""
        self._stream = stream
        self._silence_s = silence_s
        self._clock = clock
        self._titles: dict[str, str] = {}
        self._began: dict[str, float] = {}
        self._last: dict[str, tuple[int, float]] = {}

    def start(self, key: str, title: str) -> None:
        """Work ``key`` begins."""
        now = self._clock()
        self._titles[key], self._began[key], self._last[key] = title, now, (0, now)
        self.say(f"{title}: started")

    def update(self, key: str, done: int, total: int, message: str = "") -> None:
        """Work ``key`` is at ``done`` of ``total``."""
        if key not in self._titles or total <= 0:
            return
        quarter, now = 4 * done // total, self._clock()
        last_quarter, last_time = self._last[key]
        if quarter > last_quarter or now - last_time >= self._silence_s:
            self._last[key] = (quarter, now)
            self.say(f"{self._titles[key]}: {done}/{total}{f' ({message})' if message else ''}")

    def finish(self, key: str, note: str = "") -> None:
        """Work ``key`` has ended."""
        title = self._titles.pop(key, None)
        if title is not None:
            seconds = self._clock() - self._began[key]
            self.say(f"{title}: done in {seconds:.0f} s{f' ({note})' if note else ''}")

    def say(self, text: str) -> None:
        """One line."""
        print(text, file=self._stream, flush=True)


class BarDisplay(_Display):
    """A bar for each piece of work that runs; it leaves one line when it ends."""

    def __init__(self, stream: TextIO) -> None:
        """Nothing is drawn before the ``with`` block begins."""
        self._stream = stream
        self._bars: dict[str, tuple[TaskID, str, float]] = {}
        self._rich: RichProgress | None = None

    def __enter__(self) -> Self:
        """Begins to draw."""
        # Rich takes a while to import, and most commands need no bar.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        self._rich = Progress(*columns, console=Console(file=self._stream), refresh_per_second=5)
        self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops drawing."""
        if self._rich is not None:
            self._rich.stop()
            self._rich = None
        self._bars.clear()

    def start(self, key: str, title: str) -> None:
        """Work ``key`` begins."""
        if self._rich is not None:
            self._bars[key] = (self._rich.add_task(title, total=None, note=""), title, time.monotonic())

    def update(self, key: str, done: int, total: int, message: str = "") -> None:
        """Work ``key`` is at ``done`` of ``total``."""
        if self._rich is not None and key in self._bars:
            self._rich.update(self._bars[key][0], completed=done, total=total or None, note=message)

    def finish(self, key: str, note: str = "") -> None:
        """Work ``key`` has ended."""
        if self._rich is None or key not in self._bars:
            return
        bar, title, began = self._bars.pop(key)
        self._rich.remove_task(bar)
        self.say(f"{title}: done in {time.monotonic() - began:.0f} s{f' ({note})' if note else ''}")

    def say(self, text: str) -> None:
        """One line above the bars."""
        if self._rich is not None:
            self._rich.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)


class ProgressFile:
    """A :class:`Progress` of a worker process: keeps its last call in a small file for the driver."""

    def __init__(self, path: Path, interval_s: float = 0.2) -> None:
        """Writes at most once per ``interval_s`` seconds, and always when all is done."""
        self._path = path
        self._interval_s = interval_s
        self._written = -interval_s

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Says that ``done`` of ``total`` units are finished."""
        now = time.monotonic()
        if done < total and now - self._written < self._interval_s:
            return
        self._written = now
        # Renamed into place so that the driver never reads half of it; losing it in a crash is fine.
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.write_text(json.dumps([int(done), int(total), str(message)]))
        # A new driver may be tidying up at this very moment.
        with suppress(FileNotFoundError):
            temporary.replace(self._path)

    def __enter__(self) -> Self:
        """Creates the file: the work has begun."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self(0, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes the file: the work has ended."""
        self._path.unlink(missing_ok=True)


def read_progress(path: Path) -> tuple[int, int, str] | None:
    """What a :class:`ProgressFile` last said, or ``None`` where nothing runs."""
    try:
        done, total, message = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return done, total, message
