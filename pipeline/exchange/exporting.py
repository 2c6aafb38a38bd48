"""What every export shares: which episodes fit together, their actions and images, what is there already."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from itertools import batched
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.action_sketch import ActionSketch
from pipeline.action_statistics import ActionStatistics
from pipeline.atomic_folder import building
from pipeline.dataset_selection import Outcomes, check_selection, content_bytes
from pipeline.durable_files import fsync_path
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.exchange.action_spaces import ActionSpace, to_space
from pipeline.frame_codec import decode

Progress = Callable[[int, int], None]
"""Called now and then with how many frames are done, of how many."""

_ROWS_PER_BLOCK = 32
_DECODING_THREADS = 8

NEEDED = {
    ActionSpace.TWIST: ("action",),
    ActionSpace.DELTA_POSE: ("action",),
    ActionSpace.ABSOLUTE_POSE: ("action", "tool_pose"),
    ActionSpace.JOINT_POSITIONS: ("action", "joint_positions"),
}
"""What a recording must not lack to have actions in each space."""


def check_episodes(
    episodes: Sequence[EpisodeEntry], outcomes: Outcomes, action_space: ActionSpace, image_size: int | None
) -> None:
    """Raises ``InputError`` unless the episodes can lie in one dataset with actions in ``action_space``."""
    check_selection(episodes, outcomes)
    if image_size is not None and image_size < 1:
        raise InputError(f"image size {image_size} is not positive")
    first = episodes[0].info
    for entry in episodes:
        info = entry.info
        lacking = [name for name in NEEDED[action_space] if name in info.missing]
        if lacking:
            raise InputError(
                f"episode {entry.id} was recorded without {', '.join(lacking)}, so it has no actions in "
                f"the action space {action_space}: leave it out"
            )
        if (set(info.cameras), info.rate_hz) != (set(first.cameras), first.rate_hz):
            raise InputError(
                f"episode {entry.id} has cameras {info.cameras} at {info.rate_hz} Hz, episode {first.id} "
                f"{first.cameras} at {first.rate_hz} Hz: a dataset needs the same in all"
            )


def build_record(
    kind: str, version: int, episodes: Sequence[EpisodeEntry], outcomes: Outcomes, **options: Any
) -> dict[str, Any]:
    """What an export is made from, for JSON; exports with equal records have equal content."""
    digest = blake2b(digest_size=16)
    for entry in episodes:
        digest.update(content_bytes(entry, outcomes))
    return {"kind": kind, "version": version, **options, "content": digest.hexdigest()}


@contextmanager
def building_file(out: Path) -> Iterator[Path]:
    """Yields the path of a file to write, which becomes ``out`` when the block ends without an exception.

    Whatever happens, half a file never appears under the name ``out``. A full disk is a ``Failure``.
    """
    try:
        with building(out) as aside:
            aside.rmdir()  # a file takes the folder's place
            yield aside
            fsync_path(aside)
            if out.exists():  # a file, unlike a folder, would be replaced
                raise Failure(f"{out} appeared while it was being written: look at it, then export again")
    except (OSError, RuntimeError) as error:  # h5py raises either, depending on where HDF5 failed
        if isinstance(error, Failure):
            raise
        raise Failure(f"could not write {out}: {error}") from error


def episode_actions(reader: EpisodeReader, action_space: ActionSpace) -> np.ndarray:
    """An open episode's actions, float32 (T, k). Raises ``InputError`` if one is not finite."""
    actions = to_space(
        action_space,
        reader.actions,
        reader.state("tool_pose"),
        reader.state("joint_positions"),
        reader.info.rate_hz,
    )
    bad = np.flatnonzero(~np.isfinite(actions).all(axis=1))
    if len(bad):
        raise InputError(f"{reader.path}: the action of frame {bad[0]} is not finite as {action_space}")
    return actions


def gather_statistics(
    episodes: Sequence[EpisodeEntry], action_space: ActionSpace
) -> dict[str, ActionStatistics]:
    """Statistics of all actions by robot, sorted by its name; reads no images."""
    sketches: dict[str, ActionSketch] = {}
    for entry in episodes:
        with EpisodeReader(entry.path) as reader:
            actions = episode_actions(reader, action_space)
        robot = entry.info.robot
        sketches.setdefault(robot, ActionSketch(robot, action_space)).update(actions)
    return {robot: sketches[robot].statistics() for robot in sorted(sketches)}


def image_shapes(episodes: Sequence[EpisodeEntry], size: int | None) -> dict[str, tuple[int, int]]:
    """Each camera's height and width in an export: the recordings', or ``size`` × ``size`` pixels.

    Raises ``InputError`` where recordings differ and no size is given.
    """
    shapes: dict[str, tuple[int, int]] = {}
    for entry in episodes:
        with EpisodeReader(entry.path) as reader:
            for camera in entry.info.cameras:
                found = (size, size) if size is not None else reader.image(camera, 0).shape[:2]
                if shapes.setdefault(camera, found) != found:
                    before = "×".join(map(str, shapes[camera]))
                    raise InputError(
                        f"camera {camera!r} is {found[0]}×{found[1]} pixels in episode {entry.id} and "
                        f"{before} in others: give them one size with --image-size"
                    )
    return shapes


def image_blocks(
    reader: EpisodeReader, camera: str, shape: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """A camera's images as (first frame, uint8 (n, height, width, 3) RGB), a few at a time.

    Images of another size are resized, by averaging where they shrink. Raises ``InputError`` for a
    damaged image.
    """
    start = 0
    # OpenCV lets go of Python's lock while it decodes, which is most of an export's work.
    with ThreadPoolExecutor(min(_DECODING_THREADS, os.cpu_count() or 1)) as pool:
        for jpegs in batched(reader.stream_jpegs(camera), _ROWS_PER_BLOCK):
            images = list(pool.map(partial(_decoded, shape=shape), jpegs))
            whole = [image for image in images if image is not None]
            if len(whole) < len(images):
                number = start + next(i for i, image in enumerate(images) if image is None)
                raise InputError(
                    f"{reader.path}: the image of camera {camera!r} in frame {number} is damaged"
                )
            yield start, np.stack(whole)
            start += len(whole)


def _decoded(jpeg: np.ndarray, shape: tuple[int, int]) -> np.ndarray | None:
    image = decode(jpeg)
    if image is None or image.shape[:2] == shape:
        return image
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


class FrameCounter:
    """Counts images as they are written and tells ``progress`` in frames."""

    def __init__(self, episodes: Sequence[EpisodeEntry], progress: Progress | None) -> None:
        """Nothing is done yet."""
        self._progress = progress
        self._frames = sum(entry.length for entry in episodes)
        self._cameras = max(len(episodes[0].info.cameras), 1)
        self._images = 0

    def add(self, images: int) -> None:
        """``images`` more are written."""
        self._images += images
        if self._progress is not None:
            self._progress(self._images // self._cameras, self._frames)
