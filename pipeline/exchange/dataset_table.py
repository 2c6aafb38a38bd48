"""A LeRobotDataset as a table of frames to train a policy on, with each frame's indicator from its prompt.

For datasets that are not this workspace's: conditioned views of another lab, exports that were copied to a
machine with a GPU. The frames are decoded into memory once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from pipeline.episode import ACTION_NAMES, POLICY_STATE_NAMES
from pipeline.errors import InputError
from pipeline.exchange.foreign_video import video_images
from pipeline.exchange.lerobot_folder import EpisodePlace, LeRobotFolder
from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, NONE, POSITIVE, parse_prompt

_IMAGES = "observation.images."
_CODES = {"positive": POSITIVE, "negative": NEGATIVE, None: NONE}


def dataset_table(root: Path, image_size: int) -> tuple[FrameTable, np.ndarray]:
    """All frames of the dataset in ``root``, images resized to ``image_size``², and (N,) int8 indicators.

    The dataset must have this project's state (15), actions (7) and cameras as videos, as ``recap episodes
    export`` and conditioned views have. Raises ``InputError`` for any other and for damage.
    """
    folder = LeRobotFolder(root)
    cameras = sorted(
        key.removeprefix(_IMAGES)
        for key, feature in folder.features.items()
        if key.startswith(_IMAGES) and feature["dtype"] == "video" and not folder.is_depth(key)
    )
    if not cameras:
        raise InputError(f"{root} has no videos of cameras to train a policy on")
    tasks: list[str] = []
    parts: dict[str, list[np.ndarray]] = {"state": [], "action": [], "codes": []}
    images: list[np.ndarray] = []
    for number in folder.numbers:
        place = folder.place(number)
        columns, _ = folder.columns(place)
        parts["state"].append(_column(root, columns, "observation.state", len(POLICY_STATE_NAMES)))
        parts["action"].append(_column(root, columns, "action", len(ACTION_NAMES)))
        task, codes = _prompts(folder, place, columns)
        tasks.append(task)
        parts["codes"].append(codes)
        images.append(_images(folder, place, cameras, image_size))
    lengths = np.array([len(codes) for codes in parts["codes"]], dtype=np.int64)
    table = FrameTable(
        episode_ids=[str(number) for number in folder.numbers],
        tasks=tasks,
        cameras=tuple(cameras),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        episode_index=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        frame_index=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        source=np.zeros(int(lengths.sum()), dtype=np.uint8),
        state=np.concatenate(parts["state"]),
        action=np.concatenate(parts["action"]),
        _episode_images=images,
        rates=np.full(len(lengths), folder.rate_hz),
    )
    return table, np.concatenate(parts["codes"])


def _column(root: Path, columns: dict[str, np.ndarray], name: str, width: int) -> np.ndarray:
    values = columns.get(name)
    if values is None or values.ndim != 2 or values.shape[1] != width:
        shape = "missing" if values is None else f"of shape {values.shape[1:]}"
        raise InputError(
            f"{root}: {name} is {shape}, must be ({width},) as this robot's: import the dataset with "
            "'recap episodes import', which converts it"
        )
    if not np.isfinite(values).all():
        raise InputError(f"{root}: {name} holds numbers that are not finite")
    return values.astype(np.float32)


def _prompts(
    folder: LeRobotFolder, place: EpisodePlace, columns: dict[str, np.ndarray]
) -> tuple[str, np.ndarray]:
    """The episode's bare task and its frames' indicators."""
    numbers = columns.get("task_index")
    if numbers is None:
        raise InputError(f"{folder.root} has no task_index: it does not say what was done")
    flat = numbers.reshape(-1).tolist()
    unknown = set(flat) - folder.tasks.keys()
    if unknown:
        raise InputError(f"{folder.root}: there is no task {unknown.pop()} in its list of tasks")
    parsed = [parse_prompt(folder.tasks[number]) for number in flat]
    bare = {task for task, _ in parsed}
    if len(bare) != 1:
        raise InputError(f"{folder.root}: episode {place.number} has several tasks, {sorted(bare)}")
    return bare.pop(), np.array([_CODES[word] for _, word in parsed], dtype=np.int8)


def _images(folder: LeRobotFolder, place: EpisodePlace, cameras: list[str], size: int) -> np.ndarray:
    """Every camera's images of an episode: (T, cameras, S, S, 3) uint8."""
    out = np.empty((place.length, len(cameras), size, size, 3), dtype=np.uint8)
    for i, camera in enumerate(cameras):
        for row, image in enumerate(_decoded(folder, place, f"{_IMAGES}{camera}")):
            fits = image.shape[:2] == (size, size)
            out[row, i] = image if fits else cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return out


def _decoded(folder: LeRobotFolder, place: EpisodePlace, key: str) -> Iterator[np.ndarray]:
    path, start_s = folder.video(place, key)
    return video_images(path, place.length, start_s=start_s, rate_hz=folder.rate_hz)
