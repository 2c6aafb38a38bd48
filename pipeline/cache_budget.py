"""How much the frame cache may hold, and what goes first: whatever was opened least recently.

Only decoded frames count and are evicted. Scores are small, and encoded videos are shared with the
datasets by hard links, so that removing them would free nothing.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache_layout import EpisodePointer, exclusive_lock, read_pointer
from pipeline.mapped_arrays import METADATA, read_attributes

GIB = 2**30
# Without a limit of its own, the cache gets this share of what is free or already its own.
DEFAULT_SHARE = 0.5

_FRAMES = "frames-"


@dataclass(frozen=True)
class CachedContent:
    """One recording's arrays at one image size.

    ``episodes`` are the ids that share it, none where its builder was killed; ``last_used`` is in
    seconds since 1970; ``frames`` is 0 where no episode says so.
    """

    path: Path
    image_size: int
    bytes: int
    last_used: float
    episodes: tuple[str, ...]
    frames: int
    pointers: tuple[Path, ...]


@dataclass(frozen=True)
class Inventory:
    """What a frame cache holds; ``leftovers`` are folders that nothing can read or use any more."""

    contents: list[CachedContent]
    leftovers: list[Path]

    @property
    def bytes(self) -> int:
        """The size of all decoded frames."""
        return sum(content.bytes for content in self.contents)


@dataclass(frozen=True)
class Trimming:
    """What was removed, or would be; ``busy``: nothing was, since others were building or opening entries."""

    removed: list[CachedContent]
    leftovers: list[Path]
    bytes_before: int
    bytes_after: int
    busy: bool = False


def allowed_bytes(root: Path, max_gib: float | None) -> int:
    """The budget: ``max_gib`` GiB, or half of the disk space that is free or the cache's own already."""
    if max_gib is not None:
        return int(max_gib * GIB)
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    return int(DEFAULT_SHARE * (shutil.disk_usage(existing).free + take_inventory(root).bytes))


def take_inventory(root: Path) -> Inventory:
    """All decoded frames below the cache's ``root``, at every image size."""
    contents: list[CachedContent] = []
    leftovers: list[Path] = [root / ".evicted"] if (root / ".evicted").exists() else []
    for folder in sorted(root.glob(f"{_FRAMES}*")):
        size = folder.name.removeprefix(_FRAMES)
        if size.isdecimal():
            contents += _contents(folder, int(size))
            leftovers += _leftovers(folder)
    return Inventory(contents, leftovers)


def trim(
    root: Path,
    max_bytes: int,
    keep: Collection[Path] = (),
    *,
    wait_s: float = 0.0,
    dry_run: bool = False,
) -> Trimming:
    """Removes the contents used least recently until the frames take ``max_bytes`` at most.

    Those whose folder is in ``keep`` stay, even if that is too much. Waits ``wait_s`` seconds for
    processes that are between building and opening (``FrameCache.held``), then gives up and says
    ``busy``. What a process has open stays readable to it; the disk gets the space back when it ends.
    Killed at any moment, it leaves no entry half removed. What killed builders and earlier versions
    left behind goes too.
    """
    if not root.is_dir():
        return Trimming([], [], 0, 0)
    if dry_run:
        return _plan(take_inventory(root), max_bytes, keep)
    with exclusive_lock(root, wait_s) as alone:
        plan = _plan(take_inventory(root), max_bytes, keep)
        if not alone:
            return Trimming([], [], plan.bytes_before, plan.bytes_before, busy=True)
        for content in plan.removed:
            _evict(root, content.path)
            _unlink(content.pointers)
        for leftover in plan.leftovers:
            _evict(root, leftover)
        _unlink(_dangling(root))
        shutil.rmtree(root / ".evicted", ignore_errors=True)
    return plan


def _plan(inventory: Inventory, max_bytes: int, keep: Collection[Path]) -> Trimming:
    kept = {path.absolute() for path in keep}
    total = inventory.bytes
    removed = []
    for content in sorted(inventory.contents, key=lambda content: content.last_used):
        if total <= max_bytes:
            break
        if content.path.absolute() not in kept:
            removed.append(content)
            total -= content.bytes
    return Trimming(removed, inventory.leftovers, inventory.bytes, total)


def _evict(root: Path, folder: Path) -> None:
    # Renamed first: removing takes several steps, and nobody may find half an entry.
    aside = root / ".evicted" / uuid.uuid4().hex
    if folder == aside.parent:
        return
    aside.parent.mkdir(exist_ok=True)
    folder.rename(aside)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _contents(folder: Path, image_size: int) -> Iterator[CachedContent]:
    pointers: dict[str, list[tuple[Path, EpisodePointer]]] = defaultdict(list)
    for path, pointer in _pointers(folder):
        pointers[pointer.content].append((path, pointer))
    for path in sorted((folder / "content").glob("[!.]*")):
        found = pointers[path.name]
        try:
            last_used = (path / METADATA).stat().st_mtime
        except FileNotFoundError:
            last_used = 0.0  # damaged: goes first
        yield CachedContent(
            path=path,
            image_size=image_size,
            bytes=folder_bytes(path),
            last_used=last_used,
            episodes=tuple(sorted(file.stem for file, _ in found)),
            frames=max((pointer.frames for _, pointer in found), default=0),
            pointers=tuple(file for file, _ in found),
        )


def _pointers(folder: Path) -> Iterator[tuple[Path, EpisodePointer]]:
    for path in sorted((folder / "episodes").glob("[!.]*.json")):
        pointer = read_pointer(path)
        if pointer is not None:
            yield path, pointer


def _dangling(root: Path) -> Iterator[Path]:
    for folder in root.glob(f"{_FRAMES}*"):
        for path in (folder / "episodes").glob("[!.]*.json"):
            pointer = read_pointer(path)
            if pointer is None or not (folder / "content" / pointer.content).exists():
                yield path


def _leftovers(folder: Path) -> Iterator[Path]:
    """Unfinished entries (dead builders', if nobody holds the cache) and those of the first layout."""
    yield from sorted((folder / "content").glob(".*.building-*"))
    for path in sorted(folder.glob("*/")):
        if read_attributes(path).get("layout_version") == 1:
            yield path


def folder_bytes(folder: Path) -> int:
    """The sizes of all files below ``folder`` added up, each once however many names it has there."""
    sizes = {}
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                status = (Path(parent) / name).stat()
            except FileNotFoundError:  # removed meanwhile
                continue
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())
