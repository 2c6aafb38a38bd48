"""A real terminal for tests: a pseudo-terminal whose other end a test types into."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


class Terminal:
    """``fd`` is the end that a program reads; the test types at the other."""

    def __init__(self) -> None:
        """Opens it."""
        self._keyboard, self.fd = os.openpty()

    def type(self, data: bytes) -> None:
        """Sends bytes as a keyboard would."""
        os.write(self._keyboard, data)

    def hang_up(self) -> None:
        """Closes the window; harmless when it is closed."""
        if self._keyboard >= 0:
            os.close(self._keyboard)
            self._keyboard = -1

    def close(self) -> None:
        """Closes both ends."""
        self.hang_up()
        with contextlib.suppress(OSError):
            os.close(self.fd)


def open_terminal() -> Iterator[Terminal]:
    """For fixtures."""
    terminal = Terminal()
    yield terminal
    terminal.close()
