"""Scores of frames (value, advantage, …), beside the frame cache: one array an episode, score and run.

Each episode's scores are a Zarr v3 group that plain ``zarr.open_group`` reads, written aside and renamed
into place: all of its arrays appear at once, whenever the writer may have been killed. They are not
flushed to the disk one by one, which would take longer than computing them; instead the group carries a
checksum of each array, and what a power cut has spoilt counts as not scored: an array, the checksums, or
both. Where the arrays themselves are gone, plain Zarr reads NaN. All can be computed again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipeline.atomic_folder import remove_all_leftovers
from pipeline.cache_layout import safe_name
from pipeline.errors import InputError
from pipeline.mapped_arrays import METADATA, chunk_file, map_array, read_attributes

if TYPE_CHECKING:
    from pipeline.frame_cache import FrameCache

# How the names of runs begin that hold the values of an ensemble and no advantages: labels have no part in
# them, and they grow with the workspace.
VALUES_PREFIX = "values-"

# Version 1 had no such attribute and no checksums; its arrays were written by the library and flushed.
FORMAT_VERSION = 2
_VERSION = "format_version"
_CHECKSUMS = "crc32"
_CONTENT = "content"
# Names of one file; ext4 allows 65,000.
_MOST_LINKS = 10_000
# As remove_all_leftovers knows it.
_ASIDE_PREFIX = ".scores.building-"


class ScoreWriter:
    """Publishes the scores of many episodes of one scoring run; a context manager.

    Any number of writers, in any number of processes, may work on one run. Publishing an episode takes
    well under a millisecond, however many there are.
    """

    def __init__(self, cache: FrameCache, scoring_run: str) -> None:
        """Touches nothing. Raises ``InputError`` for a run that cannot be a folder's name."""
        self.scoring_run = scoring_run
        self._folder = cache.scores_folder(scoring_run, "any").parent
        self._numbers = count()
        self._aside: Path | None = None
        self._lock = -1
        self._descriptions: dict[int, str] = {}

    def __enter__(self) -> Self:
        """Makes the folder in which episodes are written before they are published."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while self._aside is None:
            folder = Path(tempfile.mkdtemp(prefix=_ASIDE_PREFIX, dir=self._folder))
            # Taken for a left-over by another process until it is locked, see pipeline.atomic_folder.
            with suppress(FileNotFoundError):
                lock = os.open(folder, os.O_RDONLY)
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if folder.exists():
                        self._aside, self._lock = folder, lock
                        break
                os.close(lock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes that folder."""
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            os.close(self._lock)
            self._aside = None

    def publish(self, episode_id: str, scores: Mapping[str, np.ndarray], *, content: str = "") -> None:
        """Stores named ``(T,)`` float32 arrays of one episode; all names appear at once.

        Publishing again replaces them all. ``content`` says what they were computed from, where that is
        known (:attr:`pipeline.stored_frames.StoredFrames.scored_from`). Raises ``InputError`` when the arrays
        differ in length or hold a number that is not finite: a missing score must never pass for
        a zero.
        """
        arrays = _checked(scores, f"scores of episode {episode_id} in run {self.scoring_run}")
        if self._aside is None:
            raise ValueError("a ScoreWriter is used within 'with'")
        attributes = {
            _VERSION: FORMAT_VERSION,
            "scoring_run": self.scoring_run,
            "episode_id": episode_id,
            _CONTENT: content,
            _CHECKSUMS: {name: zlib.crc32(array) for name, array in arrays.items()},
        }
        aside = self._aside / str(next(self._numbers))
        _write_group(aside, arrays, attributes, self._description(len(next(iter(arrays.values())))))
        final = self._folder / safe_name(episode_id)
        while True:
            try:
                aside.rename(final)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            with suppress(FileNotFoundError):  # gone where another writer has just replaced it
                final.rename(self._aside / f"former-{next(self._numbers)}")

    def _description(self, length: int) -> str:
        """A file that describes an array of that length, to be linked: making a file takes far longer."""
        path = self._descriptions.get(length)
        if path is None or Path(path).stat().st_nlink > _MOST_LINKS:
            path = f"{self._aside}/array-{next(self._numbers)}.json"
            _write(path, json.dumps(_array_metadata(length)).encode())
            self._descriptions[length] = path
        return path


def publish_scores(
    cache: FrameCache, scoring_run: str, episode_id: str, scores: Mapping[str, np.ndarray]
) -> None:
    """As :meth:`ScoreWriter.publish`, for one episode."""
    with ScoreWriter(cache, scoring_run) as writer:
        writer.publish(episode_id, scores)


def read_scores(cache: FrameCache, scoring_run: str, episode_id: str) -> dict[str, np.ndarray]:
    """All scores of one episode in one scoring run, name to read-only ``(T,)`` float32.

    Raises ``InputError`` when the run has not scored the episode, or when its scores are damaged.
    """
    folder = cache.scores_folder(scoring_run, episode_id)
    if not folder.is_dir():
        raise InputError(f"run {scoring_run} has no scores of episode {episode_id} in {folder.parent}")
    try:
        attributes = read_attributes(folder)
        scores = {child.name: map_array(child) for child in sorted(folder.iterdir()) if child.is_dir()}
        sound = _is_sound(folder, attributes, scores)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(folder, scoring_run, episode_id) from error
    if not sound:
        raise _damaged(folder, scoring_run, episode_id)
    return scores


def scored_content(cache: FrameCache, scoring_run: str, episode_id: str) -> str | None:
    """What an episode's scores were computed from; ``None`` where it has no sound scores.

    Empty where whoever published them did not say.
    """
    try:
        read_scores(cache, scoring_run, episode_id)
    except InputError:
        return None
    return str(read_attributes(cache.scores_folder(scoring_run, episode_id)).get(_CONTENT, ""))


def remove_unfinished_scores(cache: FrameCache, scoring_run: str) -> None:
    """Removes what killed writers of a run left; living ones are left alone."""
    folder = cache.scores_folder(scoring_run, "any").parent
    if folder.is_dir():
        remove_all_leftovers(folder)


def _checked(scores: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    arrays = {name: np.ascontiguousarray(values, dtype="<f4") for name, values in scores.items()}
    if not arrays or any(a.ndim != 1 for a in arrays.values()) or len({len(a) for a in arrays.values()}) != 1:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise InputError(
            f"{where} have shapes {shapes}: give one array or more of shape (T,), all of one length"
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{where}: {name!r} holds numbers that are not finite: score every frame")
    return arrays


def _is_sound(folder: Path, attributes: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays are those that were published."""
    if not scores:
        return False
    if _CHECKSUMS in attributes:
        found = {name: zlib.crc32(array) for name, array in scores.items()}
        return bool(found == attributes[_CHECKSUMS])
    # Version 1, and not metadata that has lost something: it still says whose scores these are, and no later
    # version has ever laid out its arrays like that.
    whose = {"scoring_run": folder.parent.name, "episode_id": folder.name}
    return attributes == whose and all(chunk_file(folder / name, 1).is_file() for name in scores)


def _damaged(folder: Path, scoring_run: str, episode_id: str) -> InputError:
    return InputError(
        f"the scores of episode {episode_id} in run {scoring_run} are damaged: remove {folder} "
        "and score it again"
    )


def _write_group(
    folder: Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Any], description: str
) -> None:
    """A Zarr v3 group; by hand and in few files: the library needs longer for one than the networks do."""
    root = str(folder)
    os.mkdir(root)  # noqa: PTH102  # strings: of all that is done here, paths would take longest
    for name, array in arrays.items():
        inside = f"{root}/{safe_name(name)}"
        os.mkdir(inside)  # noqa: PTH102  # as above
        _write(f"{inside}/c.0", array.tobytes())
        try:
            os.link(description, f"{inside}/{METADATA}")
        except OSError:  # a file system without such links
            shutil.copyfile(description, f"{inside}/{METADATA}")
    group = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    _write(f"{root}/{METADATA}", json.dumps(group).encode())


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def _array_metadata(length: int) -> dict[str, Any]:
    """Zarr v3's description of a ``(length,)`` float32 array in one uncompressed chunk, named ``c.0``."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [length],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, length)]}},
        # Not the usual "/": a folder for the one file would cost as much as the file.
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        # What a reader that knows no checksums gets where the chunk is gone: no score, rather than the best.
        "fill_value": "NaN",
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
        "storage_transformers": [],
    }
