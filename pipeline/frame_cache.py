"""Decode once: every episode's frames at training resolution, as arrays that can be memory-mapped.

An episode's arrays are a Zarr v3 group that plain ``zarr.open_group`` reads: images (T, cameras, S, S, 3)
uint8, state (T, 15) float32, action (T, 7) float32, source (T,) uint8, each a single uncompressed chunk
(see :mod:`pipeline.mapped_arrays`). Entries are keyed by content (:mod:`pipeline.cache_layout`): one is
valid for exactly the frames whose fingerprint was verified while it was made, and a recording under
two ids is decoded and stored once.

No two writers share a file, and each entry appears in one rename. Everything here can be made again
from the episodes: deleting the cache loses time only. What goes when space is short is decided in
:mod:`pipeline.cache_budget`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.atomic_folder import building
from pipeline.cache_layout import (
    LAYOUT_VERSION,
    EpisodePointer,
    content_folder,
    content_key,
    file_state,
    frames_root,
    images_are_whole,
    pointer_path,
    read_pointer,
    safe_name,
    shared_lock,
    write_pointer,
)
from pipeline.episode import ACTION_NAMES, POLICY_STATE_NAMES, EpisodeInfo
from pipeline.episode_file import EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.frame_scores import publish_scores, read_scores
from pipeline.mapped_arrays import METADATA, create_arrays, map_array, write_rows
from pipeline.verified_frames import decoded_images, image_blocks, read_columns

__all__ = ["CachedEpisode", "FrameCache", "decoded_images", "publish_scores", "read_scores"]

REPAIR_ADVICE = "'recap episodes check --repair' finds damaged files and sets them aside"

# A child that reads an episode may take this long: far more than the slowest disk and processor need.
_LEAST_TIME_S = 60.0
_SLOWEST_BYTES_PER_S = 1e6


@dataclass(frozen=True)
class CachedEpisode:
    """One episode's arrays, read-only; T frames, C cameras in the order of ``info.cameras``.

    ``images`` (T, C, S, S, 3) uint8 RGB, memory-mapped; ``state`` (T, 15) float32 as
    :data:`pipeline.episode.POLICY_STATE_NAMES`; ``action`` (T, 7) float32 as
    :data:`pipeline.episode.ACTION_NAMES`; ``source`` (T,) uint8 as :class:`pipeline.episode.Source`.
    ``image_file`` is the file that ``images`` maps. ``content`` is the content key: equal for the same
    recording under two ids.
    """

    images: np.ndarray
    state: np.ndarray
    action: np.ndarray
    source: np.ndarray
    info: EpisodeInfo
    image_file: Path
    content: str

    @property
    def task(self) -> str:
        """The task's text, without an indicator."""
        return self.info.task

    @property
    def length(self) -> int:
        """The number of frames."""
        return len(self.source)


class FrameCache:
    """The cache below ``root`` for images of ``image_size`` × ``image_size`` pixels.

    A picture that is not square is squeezed into the square whole, not cropped.
    """

    def __init__(self, root: Path, image_size: int = 84) -> None:
        """Touches nothing on disk. Raises ``InputError`` unless ``image_size`` is positive."""
        if image_size < 1:
            raise InputError(f"image size {image_size} is not positive")
        self.root = Path(root)
        self.image_size = image_size

    def held(self) -> AbstractContextManager[None]:
        """Within: nothing is evicted. Hold it from building entries until they are open.

        What is open by then stays readable whatever is evicted later.
        """
        return shared_lock(self.root)

    def folder(self, episode_id: str) -> Path:
        """Where an episode's arrays are; episodes of equal frames share one folder.

        Raises ``InputError`` when the episode is not cached.
        """
        return self._content(self._pointer(episode_id).content)

    def build(self, episode_path: Path) -> bool:
        """Caches a finished episode file; returns whether its frames had to be decoded.

        Returns at once when the file has been cached and not changed since. Every frame is verified
        against the file's fingerprint. Safe to run from several processes at once and to kill at any
        moment. What was cached for other content under the same episode id is no longer found. Raises
        ``InputError`` for an episode without frames or with damaged ones, for a file that is not named
        after its episode, and as :class:`pipeline.episode_file.EpisodeReader` does for a bad file;
        ``Failure`` for a full disk.

        Reads in this process. HDF5 can crash on a damaged file: see :meth:`build_many`.
        """
        if self.is_current(episode_path):
            return False
        try:
            with self.held():
                return self._build(episode_path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Failure(
                f"the disk of {self.root} is full: make room, for example with 'recap cache trim'"
            ) from error

    def build_many(
        self,
        episode_paths: Sequence[Path],
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """As :meth:`build` for many files, in ``workers`` child processes; returns how many were decoded.

        Files that are current need no child at all. A file that crashes or hangs its reader costs only
        itself: the others are cached first, then one ``InputError`` names it. ``progress(done, total)``
        is called after each file.
        """
        stale = [path for path in episode_paths if not self.is_current(path)]
        done = len(episode_paths) - len(stale)
        if not stale:
            return 0
        # Costs a little to import, and is of no use where everything is current.
        from pipeline.guarded_reading import guarded_map

        decoded, errors = 0, []
        build = partial(_build_one, self.root.absolute(), self.image_size)
        paths = [path.absolute() for path in stale]
        for _, result in guarded_map(build, paths, workers=workers, timeout_s=_reading_limit_s):
            done += 1
            if isinstance(result, InputError):
                errors.append(str(result))
            elif isinstance(result, str):
                raise Failure(result)
            else:
                decoded += result
            if progress is not None:
                progress(done, len(episode_paths))
        if errors:
            count = f"{len(errors)} of {len(episode_paths)} episodes cannot be cached, the first because "
            raise InputError(f"{count if len(errors) > 1 else ''}{errors[0]}; {REPAIR_ADVICE}")
        return decoded

    def is_current(self, episode_path: Path) -> bool:
        """Whether this very file has been cached and is unchanged since; does not open it."""
        pointer = read_pointer(pointer_path(self.root, self.image_size, episode_path.stem))
        if pointer is None or not episode_path.exists():
            return False
        return pointer.source == file_state(episode_path) and self._is_whole(pointer)

    def has(self, episode_id: str) -> bool:
        """Whether the episode is cached, at this image size and in this version of the layout."""
        pointer = read_pointer(pointer_path(self.root, self.image_size, episode_id))
        return pointer is not None and self._is_whole(pointer)

    def open(self, episode_id: str) -> CachedEpisode:
        """Maps an episode's arrays into memory. Raises ``InputError`` when it is not cached."""
        pointer = self._pointer(episode_id)
        folder = self._content(pointer.content)
        try:
            episode = CachedEpisode(
                **{name: map_array(folder / name) for name in ("images", "state", "action", "source")},
                info=pointer.info,
                image_file=image_file(folder),
                content=pointer.content,
            )
        except (OSError, KeyError, ValueError) as error:
            raise self._absent(episode_id) from error
        with suppress(OSError):  # a cache that may only be read
            os.utime(folder / METADATA)  # when it was last used, for whoever evicts
        return episode

    def scores_folder(self, scoring_run: str, episode_id: str) -> Path:
        """Where an episode's scores of one scoring run are, or would be."""
        return self.root / "scores" / safe_name(scoring_run) / safe_name(episode_id)

    def _build(self, episode_path: Path) -> bool:
        state = file_state(episode_path)
        with EpisodeReader(episode_path) as reader:
            if reader.info.id != episode_path.stem:
                # Or damage to an id would put these frames in another episode's place.
                raise InputError(
                    f"{episode_path} holds the episode {reader.info.id!r}: name the file after it"
                )
            if len(reader) == 0:
                raise InputError(f"{episode_path} has no frames: exclude it, there is nothing to learn from")
            key = content_key(reader.fingerprint, reader.info.cameras)
            pointer = EpisodePointer(key, len(reader), reader.info, state)
            place = pointer_path(self.root, self.image_size, reader.info.id)
            missing = not self._is_whole(pointer)
            if missing:
                folder = self._content(key)
                with building(folder, replace=folder.exists()) as aside:
                    _write_entry(aside, reader, self.image_size)
        write_pointer(place, pointer)
        return missing

    def _content(self, key: str) -> Path:
        return content_folder(self.root, self.image_size, key)

    def _is_whole(self, pointer: EpisodePointer) -> bool:
        folder = self._content(pointer.content)
        return images_are_whole(folder, pointer.frames, len(pointer.info.cameras), self.image_size)

    def _pointer(self, episode_id: str) -> EpisodePointer:
        pointer = read_pointer(pointer_path(self.root, self.image_size, episode_id))
        if pointer is None or not self._is_whole(pointer):
            raise self._absent(episode_id)
        return pointer

    def _absent(self, episode_id: str) -> InputError:
        where = frames_root(self.root, self.image_size)
        return InputError(f"episode {episode_id} is not in the frame cache at {where}: build it first")


def image_file(folder: Path) -> Path:
    """The one file that holds all images of a content's folder."""
    return folder.joinpath("images", "c", "0", "0", "0", "0", "0")


def _build_one(root: Path, image_size: int, path: Path) -> bool | str:
    try:
        return FrameCache(root, image_size).build(path)
    except Failure as failure:  # passes for a result: only an InputError says that the file is at fault
        return str(failure)


def _reading_limit_s(path: Path) -> float:
    return _LEAST_TIME_S + (path.stat().st_size / _SLOWEST_BYTES_PER_S if path.exists() else 0)


def _write_entry(folder: Path, reader: EpisodeReader, size: int) -> None:
    length, cameras = len(reader), reader.info.cameras
    columns = read_columns(reader)
    files = create_arrays(
        folder,
        {
            "images": ((length, len(cameras), size, size, 3), "uint8"),
            "state": ((length, len(POLICY_STATE_NAMES)), "float32"),
            "action": ((length, len(ACTION_NAMES)), "float32"),
            "source": ((length,), "uint8"),
        },
        {"layout_version": LAYOUT_VERSION, "fingerprint": reader.fingerprint, "cameras": list(cameras)},
    )
    write_rows(files["state"], [columns.policy_state])
    write_rows(files["action"], [columns.action])
    write_rows(files["source"], [columns.source])
    write_rows(files["images"], image_blocks(reader, columns, size))
