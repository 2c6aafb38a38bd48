"""How much room a disk has left, asked from a thread: a network disk that hangs must not stop the arm."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

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
