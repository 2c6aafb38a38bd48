"""A folder of our own for a Ray that this process starts, which goes when that Ray does.

Left to itself, Ray makes one in ``/tmp/ray`` at each start and never removes it. Ours is held by a lock while
its process lives. Where that was killed, the next start of this software, by the same account, removes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.file_lock import is_locked, locked

PREFIX = "recap-ray-"
_LOCK = ".in-use.lock"
# A socket's path may have 107 characters (sun_path in <sys/un.h>), and Ray appends this much to the folder's:
# /session_2026-11-21_18-51-51_436035_1947112/sockets/plasma_store
_APPENDED = 66
_LONGEST = 107 - _APPENDED
# A folder this young may have been made and not locked yet.
_YOUNG_SECONDS = 60.0


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Within: a new folder that only this account can read. Removed at the end, with all that is in it.

    Before that, folders of processes of this account that were killed are removed.
    """
    place = _place()
    remove_left_behind(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    try:
        with locked(folder / _LOCK):
            yield folder
    finally:
        # Ray's processes may still write their last lines.
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_behind(place: Path) -> None:
    """Removes folders of :func:`ray_folder` in ``place`` that are this account's and held by no process."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else removes it, too
            status = folder.lstat()
            own = status.st_uid == os.getuid() and not folder.is_symlink() and folder.is_dir()
            if own and time.time() - status.st_mtime > _YOUNG_SECONDS and not is_locked(folder / _LOCK):
                shutil.rmtree(folder, ignore_errors=True)


def _place() -> Path:
    """Where temporary files go; ``/tmp`` where that path is too long for Ray's sockets."""
    place = Path(tempfile.gettempdir())
    # What mkdtemp appends to the prefix has eight characters.
    return place if len(str(place / PREFIX)) + 8 <= _LONGEST else Path("/tmp")  # as Ray's own
