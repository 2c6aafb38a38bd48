"""How much disk folders take, looked at in bounded time, and what removing some of them would free."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

# About 0.1 s of looking at names on a warm disk.
AT_MOST = 20_000


@dataclass(frozen=True)
class Usage:
    """Bytes of ``files`` files; not ``complete`` where there are more, which were not looked at."""

    bytes: int
    files: int
    complete: bool

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(self.bytes + other.bytes, self.files + other.files, self.complete and other.complete)

    def __str__(self) -> str:
        """Such as ``1.20 GiB``, or ``over 1.20 GiB``."""
        return ("" if self.complete else "over ") + size_in_words(self.bytes)


def usage_of(folder: Path, at_most: int = AT_MOST, seen: set[tuple[int, int]] | None = None) -> Usage:
    """The size of the files below ``folder``, each once however many names it has; of ``at_most`` files.

    Links to other places are not followed. A folder that is missing is empty. ``seen`` are files (device and
    inode) that were counted elsewhere and are not counted here; those of here are added.
    """
    seen = set() if seen is None else seen
    total = files = 0
    for status in _statuses(folder):
        if files == at_most:
            return Usage(total, files, complete=False)
        files += 1
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink == 1 or inode not in seen:
            if status.st_nlink > 1:
                seen.add(inode)
            total += status.st_size
    return Usage(total, files, complete=True)


def freed_by_removing(paths: Iterable[Path]) -> dict[Path, int]:
    """The bytes that each of these files or folders gives back when all of them are removed.

    A file that has another name elsewhere (a hard link) gives nothing back; one with several names among
    them counts once, for the last.
    """
    names: Counter[tuple[int, int]] = Counter()
    last: dict[tuple[int, int], tuple[Path, os.stat_result]] = {}
    freed: dict[Path, int] = {}
    for path in paths:
        freed[path] = 0
        for status in _statuses(path):
            inode = (status.st_dev, status.st_ino)
            names[inode] += 1
            last[inode] = (path, status)
    for inode, (path, status) in last.items():
        if names[inode] >= status.st_nlink:
            freed[path] += status.st_size
    return freed


def files_since(folder: Path, at_most: int = AT_MOST) -> list[tuple[float, int]]:
    """When each file below ``folder`` was changed (seconds since 1970), and its size."""
    return [(status.st_mtime, status.st_size) for status in islice(_statuses(folder), at_most)]


def size_in_words(count: int) -> str:
    """Bytes as GiB, MiB or, below a tenth of that, KiB."""
    if count >= 2**30:
        return f"{count / 2**30:.2f} GiB"
    # Nothing is nothing in any unit; what is there is never said to be 0.0.
    return (
        f"{count / 2**20:.1f} MiB" if count >= 0.1 * 2**20 or not count else f"{math.ceil(count / 2**10)} KiB"
    )


def _statuses(path: Path | str) -> Iterator[os.stat_result]:
    """Of every file at or below ``path``, links to other places excepted."""
    if Path(path).is_symlink():
        return
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _statuses(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.stat(follow_symlinks=False)
    except NotADirectoryError:
        yield os.lstat(path)
    except FileNotFoundError:  # removed meanwhile
        return
