"""The most memory that this process and all its descendants held at one time."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil


class MemoryMeter:
    """Samples the whole process tree from a thread; a context manager.

    Counts proportional set size (each shared page divided among those who share it), so that the sum
    over processes is what the machine really holds; resident size where the kernel does not tell.
    """

    def __init__(self, interval_s: float = 2.0) -> None:
        """``interval_s``: seconds between samples; a peak shorter than that may be missed."""
        self._interval_s = interval_s
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-meter", daemon=True)

    @property
    def peak_bytes(self) -> int:
        """The largest sample so far."""
        return self._peak

    def __enter__(self) -> Self:
        """Begins to sample."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes a last sample and stops."""
        self._stop.set()
        self._thread.join()

    def sample(self) -> None:
        """Takes one sample now."""
        self._peak = max(self._peak, tree_bytes())

    def _run(self) -> None:
        self.sample()
        while not self._stop.wait(self._interval_s):
            self.sample()
        self.sample()


def tree_bytes() -> int:
    """What this process and its descendants hold now."""
    me = psutil.Process()
    return sum(_process_bytes(process) for process in [me, *me.children(recursive=True)])


def _process_bytes(process: psutil.Process) -> int:
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # Ended meanwhile, or not for us to look into.
        pass
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0
