"""One cached episode as files to read stretches of frames from: what goes through all frames in order reads.

:class:`pipeline.frame_cache.FrameCache` maps an episode's arrays into memory, which is best for picking
frames at random. Whoever reads every frame once does better with plain reads into a buffer of its own: no
page is mapped and faulted in, the memory in use stays that of the buffer, and a file that has lost its end
is an error, not a crash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pipeline.cache_layout import content_folder, file_state, images_are_whole, pointer_path, read_pointer
from pipeline.episode import POLICY_STATE_NAMES, EpisodeInfo
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache, image_file
from pipeline.mapped_arrays import chunk_file

_STATE_BYTES = 4 * len(POLICY_STATE_NAMES)


@dataclass(frozen=True)
class StoredFrames:
    """Where the T frames of one episode lie in the frame cache; opens nothing, small to hand around.

    ``content`` is their content key; ``length`` is T; ``cameras`` how many images a frame has, each
    ``image_size`` pixels on a side.
    """

    episode_id: str
    task: str
    content: str
    length: int
    cameras: int
    image_size: int
    folder: Path

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """The shape of one frame's images: cameras, S, S, 3."""
        return self.cameras, self.image_size, self.image_size, 3

    @property
    def scored_from(self) -> str:
        """What a value of these frames follows from, besides the models: the frames and the task's text."""
        return f"{self.content}-{blake2b(self.task.encode(), digest_size=8).hexdigest()}"

    @property
    def state_size(self) -> int:
        """The length of a frame's state."""
        return len(POLICY_STATE_NAMES)

    @contextmanager
    def opened(self) -> Iterator[FrameReader]:
        """Within: the frames can be read. Raises ``InputError`` where their files are gone."""
        descriptors: list[int] = []
        try:
            for file in (image_file(self.folder), chunk_file(self.folder / "state", 2)):
                descriptors.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            yield FrameReader(self, *descriptors)
        except FileNotFoundError as error:
            raise InputError(
                f"the cached frames of episode {self.episode_id} are gone ({error.filename}): "
                "build the frame cache again"
            ) from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


@dataclass(frozen=True)
class FrameReader:
    """The open files of :class:`StoredFrames`."""

    frames: StoredFrames
    images_file: int
    state_file: int

    def read(self, start: int, images: np.ndarray, state: np.ndarray) -> None:
        """Reads the frames from ``start`` on, as many as there are rows in the contiguous arrays given.

        ``images`` is ``(B, cameras, S, S, 3)`` uint8, ``state`` ``(B, 15)`` float32. Raises ``InputError``
        where the files end before that.
        """
        self._fill(self.images_file, start * int(np.prod(self.frames.image_shape)), images)
        self._fill(self.state_file, start * _STATE_BYTES, state)

    def _fill(self, file: int, offset: int, array: np.ndarray) -> None:
        rest = memoryview(array).cast("B")
        while rest:
            count = os.preadv(file, [rest], offset)
            if count == 0:
                raise InputError(
                    f"the cached frames of episode {self.frames.episode_id} are not whole: remove "
                    f"{self.frames.folder} and build the frame cache again"
                )
            rest, offset = rest[count:], offset + count


def stored_frames(cache: FrameCache, episode_id: str) -> StoredFrames:
    """An episode's frames as the cache has them. Raises ``InputError`` when it is not cached."""
    found = _stored(cache, episode_id, None)
    if found is None:
        raise InputError(f"episode {episode_id} is not in the frame cache at {cache.root}: build it first")
    return found


def current_frames(cache: FrameCache, episode_path: Path) -> StoredFrames | None:
    """The cached frames of this very episode file; ``None`` where they must be built or built again."""
    return _stored(cache, episode_path.stem, episode_path)


def check_complete(episode_id: str, info: EpisodeInfo) -> None:
    """Raises ``InputError`` for an episode without something that a policy reads or imitates."""
    if info.missing_for_training:
        raise InputError(
            f"episode {episode_id} was recorded without {' and '.join(info.missing_for_training)}: it can be "
            f"shown and labelled but not scored, so leave it out ('recap label set {episode_id} exclude')"
        )


def _stored(cache: FrameCache, episode_id: str, recording: Path | None) -> StoredFrames | None:
    pointer = read_pointer(pointer_path(cache.root, cache.image_size, episode_id))
    if pointer is None:
        return None
    folder = content_folder(cache.root, cache.image_size, pointer.content)
    if not images_are_whole(folder, pointer.frames, len(pointer.info.cameras), cache.image_size):
        return None
    if recording is not None and (not recording.exists() or pointer.source != file_state(recording)):
        return None
    check_complete(episode_id, pointer.info)
    return StoredFrames(
        episode_id,
        pointer.info.task,
        pointer.content,
        pointer.frames,
        len(pointer.info.cameras),
        cache.image_size,
        folder,
    )
