"""Publishing files so that a crash or a power cut never leaves half a file under a final name.

The recipe is always the same: write under another name in the same folder, fsync it, rename it into
place, fsync the folder.
"""

from __future__ import annotations

import glob
import os
import threading
from pathlib import Path


def fsync_path(path: Path) -> None:
    """Forces a file's data, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, final: Path) -> None:
    """Renames the finished file ``temporary`` to ``final`` (same file system), durably, replacing it."""
    fsync_path(temporary)
    temporary.replace(final)
    fsync_path(final.parent)


def write_file(final: Path, data: bytes) -> None:
    """Writes ``data`` to ``final`` atomically; of several at once one wins whole.

    What a killed process left of an earlier attempt at the same file is removed.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for leftover in final.parent.glob(f".{glob.escape(final.name)}.*-*.part"):
        if not process_exists(int(leftover.name.split(".")[-2].split("-")[0])):
            leftover.unlink(missing_ok=True)
    temporary = final.with_name(f".{final.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        temporary.write_bytes(data)
        publish(temporary, final)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(final)  # a full disk does not say for which file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def process_exists(pid: int) -> bool:
    """Whether a process of that number runs on this machine now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
