"""Restores episodes from a LeRobotDataset that we exported: everything but the images' last bits.

What such a dataset holds besides LeRobot's own is described in :mod:`pipeline.lerobot_dataset`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.episode import ACTION_FIELD, POLICY_STATE_NAMES, STATE_FIELDS
from pipeline.errors import InputError
from pipeline.exchange.column_mapping import ColumnMapping
from pipeline.exchange.lerobot_folder import EpisodePlace, LeRobotFolder

EPISODES = "meta/recap_episodes.parquet"
_CAMERA_TIMES = "camera_timestamp_ns."
_OWN = (
    *("observation.state", "action", "recorded_action", "policy_action", "joint_velocities", "tool_wrench"),
    *("source", "intervention", "next.done", "next.success", "timestamp_ns"),
)
_TEXTS = ("id", "task", "operator", "robot", "created", "software_version")
_OPTIONAL = ("policy_checkpoint", "operator_mark")


def restored(folder: LeRobotFolder, place: EpisodePlace, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The fields of :class:`ForeignEpisode` that our export knows exactly; none for any other dataset."""
    if not (folder.root / EPISODES).exists():
        return {}
    info = _info(folder, place)
    state = columns.get("observation.state")
    if state is None or state.shape[1:] != (len(POLICY_STATE_NAMES),) or "timestamp_ns" not in columns:
        raise InputError(f"{folder.root} has {EPISODES} but not the columns that belong to it")
    fields: dict[str, np.ndarray] = {}
    for field in STATE_FIELDS:
        if field.name in columns:
            fields[field.name] = columns[field.name]
        elif set(field.component_names) <= set(POLICY_STATE_NAMES):
            indices = [POLICY_STATE_NAMES.index(name) for name in field.component_names]
            fields[field.name] = state[:, indices]
    fields["action"] = columns.get("recorded_action", columns["action"])
    fields["policy_action"] = columns["policy_action"]
    if fields["action"].shape[1:] != ACTION_FIELD.shape:
        raise InputError(f"{folder.root}: the twists that were sent are not in it, only another action space")
    times = {
        name.removeprefix(_CAMERA_TIMES): values
        for name, values in columns.items()
        if name.startswith(_CAMERA_TIMES)
    }
    return {
        "tasks": (info["task"],),
        "mapping": ColumnMapping(),
        "robot": info["robot"],
        "operator": info["operator"],
        "created": info["created"],
        "outcome_mark": info["operator_mark"],
        "truncated": info["truncated"],
        "policy_checkpoint": info["policy_checkpoint"],
        "times_ns": columns["timestamp_ns"],
        "camera_times_ns": times,
        "step_times_s": None,
        "restored": fields,
        "restored_info": info,
        "own_columns": frozenset(name for name in columns if name in _OWN or name.startswith(_CAMERA_TIMES)),
    }


def _info(folder: LeRobotFolder, place: EpisodePlace) -> dict[str, Any]:
    """The episode's row of ``meta/recap_episodes.parquet``, checked."""
    import pyarrow.parquet as pq

    path = folder.root / EPISODES
    try:
        rows = pq.read_table(path, filters=[("episode_index", "=", place.number)]).to_pylist()
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise InputError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if len(rows) != 1:
        raise InputError(f"{path} has {len(rows)} rows of episode {place.number}")
    row = rows[0]
    try:
        if not all(isinstance(row[name], str) for name in _TEXTS):
            raise ValueError("a text is missing")
        return {
            **{name: row[name] for name in _TEXTS},
            **{name: row.get(name) for name in _OPTIONAL},
            "rate_hz": float(row["rate_hz"]),
            "cameras": tuple(row["cameras"]),
            "truncated": bool(row["truncated"]),
            "extra": json.loads(row["extra"]) if row.get("extra") else {},
            "missing": tuple(row.get("missing") or ()),
            "fingerprint": str(row.get("fingerprint") or ""),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
