"""What one episode becomes in a LeRobotDataset: its videos, its rows, and their statistics.

It runs in child processes, several episodes at a time, and so imports nothing that takes long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.dataset_folder import check_column_names, feature
from pipeline.episode import (
    ACTION_NAMES,
    POLICY_STATE_FIELDS,
    POLICY_STATE_NAMES,
    STATE_FIELDS,
    Outcome,
    Source,
    policy_state,
)
from pipeline.episode_file import EpisodeReader
from pipeline.episode_video import CameraVideo, encode_episode
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names, to_space
from pipeline.lerobot_statistics import statistics

Features = dict[str, dict[str, Any]]

SUCCESS: Final = "next.success"
# Columns that are kept for people and for import. They have no statistics: NaN would spoil them.
_KEPT_STATE: Final = ("joint_velocities", "tool_wrench")
_KEPT: Final = (*_KEPT_STATE, "policy_action", "recorded_action", "timestamp_ns")
_CAMERA_TIMES: Final = "camera_timestamp_ns."


class EpisodeJob(NamedTuple):
    """One episode to prepare. ``columns`` are the extra ones, (T,) float32 each.

    ``outcome`` is its label; with ``success_column`` it becomes a column.
    """

    path: Path
    video_store: Path
    rows_file: Path
    action_space: ActionSpace
    outcome: str | None
    success_column: bool
    columns: Mapping[str, np.ndarray]


class PreparedEpisode(NamedTuple):
    """What an :class:`EpisodeJob` gave, besides its rows file; ``statistics`` are by column."""

    videos: dict[str, CameraVideo]
    statistics: dict[str, dict[str, np.ndarray]]
    dropped: int


def prepare_episode(job: EpisodeJob) -> PreparedEpisode:
    """Encodes an episode's videos into the store and writes its rows to an Arrow file, one row a frame.

    Raises ``InputError`` for a state or action that holds NaN, and as
    :func:`pipeline.episode_video.encode_episode` does.
    """
    with EpisodeReader(job.path) as reader:
        rows = _rows(reader, job)
        videos = encode_episode(reader, job.video_store)
        dropped = reader.dropped
    table = pa.table({name: arrow_column(values) for name, values in rows.items()})
    with pa.OSFile(str(job.rows_file), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    counted = {name: statistics(values) for name, values in rows.items() if has_statistics(name)}
    return PreparedEpisode(videos, counted, dropped)


def has_statistics(column: str) -> bool:
    """Whether a column's statistics are in the dataset's metadata."""
    return column not in _KEPT and not column.startswith(_CAMERA_TIMES)


def features(
    videos: Mapping[str, CameraVideo], space: ActionSpace, success_column: bool, columns: Sequence[str]
) -> Features:
    """The dataset's features in LeRobot's words; those that LeRobot adds itself are not among them.

    Raises ``InputError`` for an extra column whose name is taken or that LeRobot cannot take.
    """
    components = {f.name: f.component_names for f in STATE_FIELDS}
    recorded = {} if space is ActionSpace.TWIST else {"recorded_action": feature("float32", ACTION_NAMES)}
    success = {SUCCESS: feature("bool", [SUCCESS])} if success_column else {}
    own = {
        "observation.state": feature("float32", POLICY_STATE_NAMES),
        **{
            f"observation.images.{camera}": {
                "dtype": "video",
                "shape": (video.height, video.width, 3),
                "names": ["height", "width", "channels"],
            }
            for camera, video in videos.items()
        },
        "action": feature("float32", action_names(space)),
        "source": feature("int64", ["source"]),
        "intervention": feature("bool", ["intervention"]),
        "next.done": feature("bool", ["next.done"]),
        **success,
        **{name: feature("float32", components[name]) for name in _KEPT_STATE},
        "policy_action": feature("float32", ACTION_NAMES),
        **recorded,
        "timestamp_ns": feature("int64", ["timestamp_ns"]),
        **{_CAMERA_TIMES + camera: feature("int64", [_CAMERA_TIMES + camera]) for camera in videos},
    }
    check_column_names(columns, own)
    return {**own, **{name: feature("float32", [name]) for name in columns}}


def arrow_column(values: np.ndarray) -> pa.Array:
    """A column (T,) or (T, k) as Arrow keeps it."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def _rows(reader: EpisodeReader, job: EpisodeJob) -> dict[str, np.ndarray]:
    """Every column of an episode but those that depend on its place in the dataset, each (T, …)."""
    state = {name: reader.state(name) for name in (*POLICY_STATE_FIELDS, *_KEPT_STATE)}
    sent, sources, rate = reader.actions, reader.sources, reader.info.rate_hz
    frame = np.arange(len(reader), dtype=np.int64)
    last = frame == len(frame) - 1
    columns = {
        "observation.state": policy_state(state),
        "action": to_space(job.action_space, sent, state["tool_pose"], state["joint_positions"], rate),
    }
    for name, values in columns.items():
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise InputError(
                f"{reader.path}: {name} is not a number in frame {first}: no policy can learn from it, "
                "leave the episode out"
            )
    columns |= {
        "source": sources.astype(np.int64),
        "intervention": sources == Source.INTERVENTION,
        "next.done": last,
        SUCCESS: last & (job.outcome == Outcome.SUCCESS),
        **{name: state[name] for name in _KEPT_STATE},
        "policy_action": reader.policy_actions,
        "recorded_action": sent,
        "timestamp_ns": reader.timestamps_ns,
        **{_CAMERA_TIMES + camera: reader.camera_timestamps_ns(camera) for camera in reader.info.cameras},
        "timestamp": (frame / rate).astype(np.float32),
        "frame_index": frame,
        **job.columns,
    }
    if not job.success_column:
        del columns[SUCCESS]
    if job.action_space is ActionSpace.TWIST:
        del columns["recorded_action"]
    return columns
