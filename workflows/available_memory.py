"""How much memory this process may still take: the machine's, or less where a control group limits it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

# Version 1 of control groups writes this or more where there is no limit.
_NO_LIMIT = 1 << 60


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes that can be had now without swapping or being killed; what the page cache holds is among them.

    The least of what the machine has and of what each control group (of a container, a pod, a batch job)
    that this process is in has left. ``root``: where ``proc`` and ``sys`` are.
    """
    left = [_left(folder, *names) for folder, names in _groups(root)]
    return max(0, min([psutil.virtual_memory().available, *(found for found in left if found is not None)]))


# Names of the limit, the use, and the prefix of the statistics, in both versions.
_V2 = ("memory.max", "memory.current", "")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of this process's control groups, the outer ones too."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = root / "sys/fs/cgroup", _V2
        if controllers:
            top, names = top / "memory", _V1
        # In a container the path may be of the machine's tree, which is not to be seen: its own is the top.
        inner = top / path.lstrip("/")
        yield from ((folder, names) for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _left(folder: Path, limit: str, use: str, prefix: str) -> int | None:
    """What a group may still take; ``None`` where it has no limit or cannot be read."""
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / use).read_text())
        if most == "max" or int(most) >= _NO_LIMIT:
            return None
        lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    # Cached files are counted as used, and given up when the memory is wanted.
    files = {f"{prefix}active_file", f"{prefix}inactive_file"}
    cached = sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in files)
    return int(most) - used + min(cached, used)
