"""One driver at a time in a workspace, and nothing left running of the one before."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.file_lock import is_locked, locked

_FILE = ".driver.lock"


@contextmanager
def driver_lock(root: Path) -> Iterator[int]:
    """Holds the workspace ``root`` and yields the lock file's descriptor, for :func:`record_processes`.

    Raises ``InputError`` where another driver holds it. Ends what is recorded of a driver that was killed.
    """
    path = root / _FILE
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(locked(path, wait=False))
        except BlockingIOError:
            raise _busy(root, _holder(path)) from None
        _end_leftovers(os.pread(descriptor, 2**16, 0))
        _note(descriptor, {"driver": os.getpid()})
        yield descriptor


def holder(root: Path) -> str | None:
    """The process that works in the workspace ``root`` now, or ``None``; its number may be ``unknown``."""
    path = root / _FILE
    return _holder(path) if is_locked(path) else None


def require_free(root: Path) -> None:
    """Raises ``InputError`` where a driver works in the workspace ``root`` now.

    For what takes long to load: it holds nothing, so :func:`driver_lock` has to be asked all the same.
    """
    if (process := holder(root)) is not None:
        raise _busy(root, process)


def _busy(root: Path, process: str) -> InputError:
    return InputError(
        f"another recap command (process {process}) is working in {root}: wait for it to end, or stop it"
    )


def _holder(path: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(path.read_text())["driver"])
    return "unknown"


def record_processes(lock: int) -> None:
    """Notes Ray's processes in the lock's file, so that the next driver can end any that outlive this one.

    When a driver is killed, two helpers of Ray's wait a minute for a server that is gone.
    """
    import psutil

    children = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            children.append([process.pid, process.create_time()])
    _note(lock, {"driver": os.getpid(), "processes": children})


def _note(lock: int, record: dict[str, Any]) -> None:
    """Writes the record; without room for it the lock holds all the same, as for whoever makes room."""
    os.ftruncate(lock, 0)
    try:
        os.pwrite(lock, json.dumps(record).encode(), 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _end_leftovers(record: bytes) -> None:
    with suppress(json.JSONDecodeError):
        processes = json.loads(record or b"{}").get("processes", [])
        if not processes:
            return
        import psutil

        for pid, created in processes:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                # The time tells it from a stranger that was given the same number since.
                if process.create_time() == created:
                    process.kill()
