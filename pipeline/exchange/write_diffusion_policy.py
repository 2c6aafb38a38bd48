"""Recorded episodes as the Zarr folder that diffusion policy trains on, its ``ReplayBuffer``.

Arrays of all frames, one episode after the other, in Zarr's version 2, which that project reads. Names
are those of its data from real robots. Actions are not scaled: that project scales them itself.

::

    data/action                 float32 (N, k)  in the chosen action space
    data/robot_eef_pose         float32 (N, 7)  tool in base: position, m, and quaternion w x y z
    data/robot_joint            float32 (N, 7)  rad
    data/robot_joint_vel        float32 (N, 7)  rad/s
    data/gripper_position       float32 (N, 1)  0 open to 1 closed
    data/robot_eef_wrench       float32 (N, 6)  N, N·m, in base
    data/<camera>               uint8 (N, H, W, 3)  RGB
    data/timestamp              float64 (N,)    seconds since the episode's first frame
    data/recorded_action        float32 (N, 7)  the twist that was sent
    data/policy_action          float32 (N, 7)  the twist that a policy wanted; NaN where none ran
    data/source                 uint8 (N,)      ``episode.Source``
    data/timestamp_ns           int64 (N,)      since 1970
    data/camera_timestamp_ns_<camera>  int64 (N,)
    meta/episode_ends           int64 (E,)      the first frame after each episode

Rows are NaN where an episode lacks a state field. A chunk is about 2 MB of frames, packed with Blosc's
LZ4, as that project does; nothing else may lie in ``data``, since its reader opens all of it.

Attributes of the root: ``recap_export`` (what it was made from), ``action_space``, ``action_names``,
``action_unit``, ``action_statistics`` (a list, one a robot, see :mod:`pipeline.action_statistics`), and
``episodes``: for each its attributes as in docs/episode-format.md, and ``outcome`` if it is labelled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.action_statistics import statistics_to_json
from pipeline.atomic_folder import building
from pipeline.dataset_selection import Outcomes, is_written
from pipeline.episode import STATE_FIELDS
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names, action_units
from pipeline.exchange.exporting import (
    FrameCounter,
    Progress,
    build_record,
    check_episodes,
    episode_actions,
    gather_statistics,
    image_blocks,
    image_shapes,
)

if TYPE_CHECKING:
    import zarr

LAYOUT_VERSION = 1
KIND = "diffusion-policy"
RECORD = "recap_export"

STATE_NAMES = {
    "tool_pose": "robot_eef_pose",
    "joint_positions": "robot_joint",
    "joint_velocities": "robot_joint_vel",
    "gripper_position": "gripper_position",
    "tool_wrench": "robot_eef_wrench",
}
"""What each state field is called there."""

_NUMBERS = {"timestamp": "float64", "source": "uint8", "timestamp_ns": "int64"}
_ACTIONS = ("recorded_action", "policy_action")
_CHUNK_BYTES = 2_000_000
_COMPRESSOR: dict[str, Any] = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 0, "blocksize": 0}


def write_diffusion_policy(
    episodes: Sequence[EpisodeEntry],
    out: Path,
    *,
    outcomes: Outcomes | None = None,
    action_space: ActionSpace = ActionSpace.TWIST,
    image_size: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the episodes, in the given order, into the folder ``out``, which it returns.

    ``outcomes`` are the labels; ``image_size`` makes all images that many pixels square. Where ``out``
    was written from equal arguments nothing is done. A killed export leaves nothing under that name.
    Needs memory for one episode's numbers and a chunk of images, however long the episodes are.

    Raises ``InputError`` when ``out`` holds anything else, for episodes that do not fit together, lack
    what the action space needs, or are damaged, and for a camera named as another array is; ``Failure``
    if the disk is full.
    """
    labels = dict(outcomes or {})
    check_episodes(episodes, labels, action_space, image_size)
    record = build_record(
        KIND, LAYOUT_VERSION, episodes, labels, action_space=str(action_space), image_size=image_size
    )
    if is_written(out, record, _read_record(out), episodes=len(episodes), held=_held):
        return out
    shapes = image_shapes(episodes, image_size)
    attributes = {RECORD: record, **_attributes(episodes, labels, action_space)}
    try:
        with building(out) as aside:
            _write(aside, episodes, shapes, action_space, attributes, FrameCounter(episodes, progress))
    except OSError as error:
        raise Failure(f"could not write {out}: {error}") from error
    return out


def _write(
    folder: Path,
    episodes: Sequence[EpisodeEntry],
    shapes: dict[str, tuple[int, int]],
    action_space: ActionSpace,
    attributes: dict[str, Any],
    counter: FrameCounter,
) -> None:
    import zarr  # slow to import

    root = zarr.create_group(folder, zarr_format=2)
    root.attrs.update(attributes)
    data, meta = root.create_group("data"), root.create_group("meta")
    frames = sum(entry.length for entry in episodes)
    columns = {
        name: _Column(data, name, (frames, *shape), dtype)
        for name, (shape, dtype) in _layout(shapes, action_space).items()
    }
    for entry in episodes:
        with EpisodeReader(entry.path) as reader:
            for name, values in _numbers(reader, action_space).items():
                columns[name].append(values)
            for camera in entry.info.cameras:
                for _, block in image_blocks(reader, camera, shapes[camera]):
                    columns[camera].append(block)
                    counter.add(len(block))
    for column in columns.values():
        column.finish()
    ends = np.cumsum([entry.length for entry in episodes], dtype=np.int64)
    meta.create_array(
        "episode_ends", shape=ends.shape, chunks=ends.shape, dtype=ends.dtype, compressors=None
    )[:] = ends


class _Column:
    """One array, filled from its first row on, always by whole chunks: a chunk is packed only once."""

    def __init__(self, group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str) -> None:
        row_bytes = np.dtype(dtype).itemsize * math.prod(shape[1:])
        self._rows = min(shape[0], math.ceil(_CHUNK_BYTES / row_bytes))
        self._array = group.create_array(
            name,
            shape=shape,
            chunks=(self._rows, *shape[1:]),
            dtype=dtype,
            compressors=_COMPRESSOR,
        )
        self._waiting = np.empty((self._rows, *shape[1:]), dtype)
        self._filled = self._written = 0

    def append(self, values: np.ndarray) -> None:
        """Adds rows."""
        taken = 0
        while taken < len(values):
            part = values[taken : taken + self._rows - self._filled]
            self._waiting[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            taken += len(part)
            if self._filled == self._rows:
                self.finish()

    def finish(self) -> None:
        """Writes what waits."""
        if self._filled:
            self._array[self._written : self._written + self._filled] = self._waiting[: self._filled]
            self._written += self._filled
            self._filled = 0


def _layout(
    shapes: dict[str, tuple[int, int]], action_space: ActionSpace
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Each array's shape of a row, and dtype."""
    layout: dict[str, tuple[tuple[int, ...], str]] = {
        "action": ((len(action_names(action_space)),), "float32"),
        **{STATE_NAMES[field.name]: (field.shape, field.dtype) for field in STATE_FIELDS},
        **dict.fromkeys(_ACTIONS, ((7,), "float32")),
        **{name: ((), dtype) for name, dtype in _NUMBERS.items()},
        **{f"camera_timestamp_ns_{camera}": ((), "int64") for camera in shapes},
    }
    for camera, shape in shapes.items():
        if camera in layout:
            raise InputError(f"a camera must not be called {camera!r} here: that array holds something else")
        layout[camera] = ((*shape, 3), "uint8")
    return layout


def _numbers(reader: EpisodeReader, action_space: ActionSpace) -> dict[str, np.ndarray]:
    times = reader.timestamps_ns
    return {
        "action": episode_actions(reader, action_space),
        **{STATE_NAMES[field.name]: reader.state(field.name) for field in STATE_FIELDS},
        "recorded_action": reader.actions,
        "policy_action": reader.policy_actions,
        "source": reader.sources,
        "timestamp": (times - times[0]) / 1e9,
        "timestamp_ns": times,
        **{f"camera_timestamp_ns_{c}": reader.camera_timestamps_ns(c) for c in reader.info.cameras},
    }


def _attributes(
    episodes: Sequence[EpisodeEntry], outcomes: Outcomes, action_space: ActionSpace
) -> dict[str, Any]:
    statistics = gather_statistics(episodes, action_space)
    facts = []
    for entry in episodes:
        known = {name: value for name, value in asdict(entry.info).items() if value is not None}
        outcome = outcomes.get(entry.id)
        facts.append(
            {**known, "fingerprint": entry.fingerprint} | ({} if outcome is None else {"outcome": outcome})
        )
    return {
        "action_space": str(action_space),
        "action_names": list(action_names(action_space)),
        "action_unit": action_units(action_space),
        "action_statistics": json.loads(statistics_to_json(list(statistics.values()))),
        "episodes": facts,
    }


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / ".zattrs").read_text())[RECORD]
    except (OSError, KeyError, ValueError, TypeError):
        return None
    return record


def _held(folder: Path) -> int:
    """How many episodes a folder that was written here has."""
    try:
        ends: dict[str, Any] = json.loads((folder / "meta" / "episode_ends" / ".zarray").read_text())
        return int(ends["shape"][0])
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{folder} is damaged: {error}") from error
