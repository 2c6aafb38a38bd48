"""ALOHA HDF5: one file an episode, as recorded by ALOHA, ACT and Mobile ALOHA.

::

    attributes: sim (bool), compress (bool)
    observations/qpos       (T, 14) joint angles in rad and grippers, left arm then right
    observations/qvel       (T, 14)
    observations/effort     (T, 14), in some
    observations/images/<camera>   (T, H, W, 3) uint8, or (T, n) JPEG bytes padded with zeros
    compress_len            (cameras, T), with JPEGs
    action                  (T, 14) the leaders' joints: the position targets
    base_action             (T, 2), Mobile ALOHA

A gripper is 1 open and 0 closed. There is no task, no rate (ALOHA runs at 50 Hz) and no outcome. Many
single-arm labs use the same file with seven joints and a gripper, (T, 8), which is mapped; two arms
do not fit our schema, so those come in only to be looked at. ALOHA's recorder gives RGB arrays to
OpenCV, so OpenCV gives RGB back; recorders that convert to BGR first need ``image_order = "bgr"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.exchange.column_mapping import Action, ColumnMapping, Gripper, Selection
from pipeline.exchange.foreign_episode import EpisodeReference, ForeignEpisode
from pipeline.exchange.foreign_hdf5 import is_images, numeric_columns, opened, stream_images, text

FORMAT = "aloha"
RATE_HZ = 50.0
_QPOS, _QVEL, _IMAGES = "observations/qpos", "observations/qvel", "observations/images"
_ARM = tuple(range(7))


def is_aloha(file: h5py.File) -> bool:
    """Whether an HDF5 file looks like an ALOHA episode."""
    return _QPOS in file


def list_aloha(path: Path) -> list[EpisodeReference]:
    """The one episode of a file."""
    return [EpisodeReference(FORMAT, path, size_bytes=path.stat().st_size)]


def read_aloha(reference: EpisodeReference, image_order: str = "rgb") -> ForeignEpisode:
    """Reads the columns; images when they are asked for. Raises ``InputError`` for anything else."""
    path = reference.path
    with opened(path) as file:
        if not isinstance(file.get(_QPOS), h5py.Dataset) or not isinstance(file.get("action"), h5py.Dataset):
            raise InputError(f"{path} is no ALOHA episode: it lacks {_QPOS} or action")
        length = len(file["action"])
        cameras, no_cameras = _cameras(file, path, length, swap=image_order == "bgr")
        columns, others = numeric_columns(file, length, skip=(_IMAGES, "compress_len"))
        extra = {name: text(value) for name, value in file.attrs.items() if np.ndim(value) == 0}
    if _QPOS not in columns or "action" not in columns:
        raise InputError(f"{path}: {_QPOS} and action do not have as many rows")
    notes = [f"not imported: {', '.join(sorted([*others, *no_cameras]))}"] if [*others, *no_cameras] else []
    return ForeignEpisode(
        format=FORMAT,
        dataset=path.resolve().parent.name,
        name=path.stem,
        tasks=(),
        rate_hz=RATE_HZ,
        length=length,
        columns=columns,
        cameras=cameras,
        mapping=_mapping(columns),
        extra={"attributes": extra},
        notes=tuple(notes),
    )


def _cameras(
    file: h5py.File, path: Path, length: int, swap: bool
) -> tuple[dict[str, partial[Iterator[np.ndarray]]], list[str]]:
    cameras, others = {}, []
    for name, item in file.get(_IMAGES, {}).items():
        if is_images(item, length):
            cameras[name] = partial(stream_images, path, f"{_IMAGES}/{name}", swap)
        else:
            others.append(f"{_IMAGES}/{name}")
    return cameras, others


def _mapping(columns: dict[str, np.ndarray]) -> ColumnMapping:
    """Seven joints and a gripper; nothing for two arms, whose joints have no place in our schema."""
    if columns[_QPOS].shape[1:] != (8,):
        return ColumnMapping()
    action = None
    if columns["action"].shape[1:] == (8,):
        action = Action(
            ActionSpace.JOINT_POSITIONS,
            gripper=Gripper("action", indices=(7,), open=1.0, closed=0.0),
            joints=Selection("action", indices=_ARM, unit="rad"),
        )
    has_velocities = _QVEL in columns and columns[_QVEL].shape[1:] == (8,)
    return ColumnMapping(
        joint_positions=Selection(_QPOS, indices=_ARM, unit="rad"),
        joint_velocities=Selection(_QVEL, indices=_ARM, unit="rad/s") if has_velocities else None,
        gripper_position=Gripper(_QPOS, indices=(7,), open=1.0, closed=0.0),
        action=action,
    )
