"""How much room a disk has left, asked from a thread: a network disk that hangs must not stop the arm."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.errors import Failure

_INTERVAL_S = 1.0


class FreeSpace:
    """Watches one file system; a context manager. ``free_bytes`` is at most about a second old."""

    def __init__(self, folder: Path, interval_s: float = _INTERVAL_S) -> None:
        """``folder`` must exist when watching begins."""
        self.folder = folder
        self.free_bytes = 0
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="free-space", daemon=True)

    def ask(self) -> int:
        """Asks now, which may wait for the disk; returns the bytes that are free."""
        self.free_bytes = shutil.disk_usage(self.folder).free
        return self.free_bytes

    def require(self, wanted_bytes: int) -> None:
        """Raises ``Failure`` where an episode that wants so much would not find it."""
        free = self.ask()
        if free < wanted_bytes:
            raise Failure(
                f"{self.folder} has only {free / 1e9:.2f} GB left and an episode wants "
                f"{wanted_bytes / 1e9:.2f}: free some space before you record"
            )

    def require_reserve(self, reserve_bytes: int, episode_id: str | None) -> None:
        """Raises ``Failure`` where a recording has to end now; asks nothing, so it never waits."""
        if self.free_bytes < reserve_bytes:
            raise Failure(
                f"recording ended: {self.folder} has only {self.free_bytes / 1e6:.0f} MB left; "
                f"{episode_id} is kept as far as it went, free some space and start again"
            )

    def __enter__(self) -> Self:
        """Asks once and goes on asking. Raises ``OSError`` where the folder is not there."""
        self.ask()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops asking, without waiting for a question that hangs."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                self.ask()
            except OSError:
                self.free_bytes = 0  # what cannot be asked cannot be written to either
