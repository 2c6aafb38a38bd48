"""Where things lie in the frame cache, and who may remove them while others read.

::

    frames-<size>/content/<content key>/    arrays of one recording; appears and goes in one rename
    frames-<size>/episodes/<episode id>.json    which content an episode has, and the episode's attributes
    scores/<scoring run>/<episode id>/    one (T,) float32 array for each score
    videos/    encoded videos, see pipeline.episode_video
    in-use.lock    held shared between building and opening, exclusively to evict
    .evicted/    what is being removed

The *content key* follows from the frames alone: the same recording under two ids is stored once.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipeline.durable_files import write_file
from pipeline.episode import EpisodeInfo
from pipeline.errors import InputError
from pipeline.mapped_arrays import METADATA, chunk_file

LAYOUT_VERSION = 2

_POLL_S = 0.05


@dataclass(frozen=True)
class EpisodePointer:
    """Which content an episode has.

    ``frames`` is its length, ``source`` the :func:`file_state` of the recording it was made from.
    """

    content: str
    frames: int
    info: EpisodeInfo
    source: dict[str, int]


def frames_root(root: Path, image_size: int) -> Path:
    """The folder of all frames of one image size (pixels, the side of the square)."""
    return root / f"frames-{image_size}"


def content_folder(root: Path, image_size: int, key: str) -> Path:
    """Where the arrays of a content key are, or would be."""
    return frames_root(root, image_size) / "content" / key


def pointer_path(root: Path, image_size: int, episode_id: str) -> Path:
    """Where an episode's pointer is, or would be. Raises ``InputError`` for an id that is no file name."""
    return frames_root(root, image_size) / "episodes" / f"{safe_name(episode_id)}.json"


def content_key(fingerprint: str, cameras: tuple[str, ...]) -> str:
    """32 hexadecimal digits for the frames of that fingerprint, their images in the order of ``cameras``."""
    # The fingerprint covers every value of every frame, but not the order in which cameras are listed.
    recipe = json.dumps([LAYOUT_VERSION, fingerprint, list(cameras)])
    return blake2b(recipe.encode(), digest_size=16).hexdigest()


def write_pointer(path: Path, pointer: EpisodePointer) -> None:
    """Publishes a pointer, replacing the one there."""
    write_file(path, json.dumps({"layout_version": LAYOUT_VERSION, **asdict(pointer)}).encode())


def read_pointer(path: Path) -> EpisodePointer | None:
    """The inverse of :func:`write_pointer`; ``None`` for none, a damaged one, or another layout."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        if fields.pop("layout_version") != LAYOUT_VERSION:
            return None
        info = fields["info"]
        for name in ("cameras", "missing"):
            info[name] = tuple(info[name])
        return EpisodePointer(**{**fields, "info": EpisodeInfo(**info)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def images_are_whole(folder: Path, frames: int, cameras: int, image_size: int) -> bool:
    """Whether a content's folder is there and its images have all of their bytes."""
    try:
        size = chunk_file(folder / "images", 5).stat().st_size
        return size == frames * cameras * image_size**2 * 3 and (folder / METADATA).exists()
    except OSError:
        return False


def file_state(path: Path) -> dict[str, int]:
    """What changes whenever a file's content does: size, inode, and the time of its last change (ns).

    Raises ``InputError`` where there is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"there is no episode file {path}") from error
    return {"bytes": status.st_size, "inode": status.st_ino, "changed_ns": status.st_ctime_ns}


@contextmanager
def shared_lock(root: Path) -> Iterator[None]:
    """Within: nothing in the cache is evicted. Any number of processes may hold it."""
    descriptor = _open_lock(root)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(root: Path, wait_s: float) -> Iterator[bool]:
    """Yields whether nobody holds the shared lock; keeps them waiting within if so.

    Tries for ``wait_s`` seconds.
    """
    descriptor = _open_lock(root)
    try:
        deadline = time.monotonic() + wait_s
        taken = False
        while not taken:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken = True
            if not taken and time.monotonic() >= deadline:
                break
            if not taken:
                time.sleep(_POLL_S)
        yield taken
    finally:
        os.close(descriptor)


def safe_name(name: str) -> str:
    """``name`` if it can be a file's name; otherwise raises ``InputError``."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise InputError(f"{name!r} cannot be a file name: use letters, digits, '-', '_' and '.'")
    return name


def _open_lock(root: Path) -> int:
    root.mkdir(parents=True, exist_ok=True)
    return os.open(root / "in-use.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
