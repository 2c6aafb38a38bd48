"""One program at a time drives an arm from this computer: a lock per arm that ends with its process.

The arm itself takes a second session of the same user without a word, and obeys both. Programs on other
computers, and those of another user of this one, are not seen.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from pathlib import Path

from pipeline.errors import InputError
from pipeline.file_lock import locked


class ArmLock:
    """The right to drive one arm; given back by :meth:`release`, and when the process ends."""

    def __init__(self, address: str, port: int) -> None:
        """``address`` and ``port`` are where the arm takes commands.

        Raises ``InputError``, one line, that names the process which has it.
        """
        self._owner = os.getpid()
        self._held = contextlib.ExitStack()
        path = _folder() / f"arm-{_numeric(address)}-{port}.lock"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = self._held.enter_context(locked(path, wait=False))
        except BlockingIOError as error:
            raise InputError(
                f"kinova_gen3: another program on this computer drives the arm {address}:{port} "
                f"({_process(path)}): end it first, or only look with 'recap arm look'"
            ) from error
        except OSError as error:
            raise InputError(
                f"kinova_gen3: cannot lock the arm in {path.parent}: {error.strerror or error}"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{self._owner}\n".encode())

    def release(self) -> None:
        """Lets others drive; harmless a second time, and in a forked worker, which never had it."""
        if os.getpid() == self._owner:
            self._held.close()


def _folder() -> Path:
    """This user's folder for what lasts as long as the computer runs; the same in every terminal."""
    user = os.getuid()
    for folder in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}"):
        if folder and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder) / "recap"
    return Path(tempfile.gettempdir()) / f"recap-{user}"


def _numeric(address: str) -> str:
    """The number of a host's name, so that one arm has one lock whatever it is called."""
    with contextlib.suppress(OSError):
        return socket.gethostbyname(address)
    return address.replace("/", "_")


def _process(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        pid = int(path.read_text())
        return "this process" if pid == os.getpid() else f"process {pid}"
    return "its process is not known"
