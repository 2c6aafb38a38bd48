"""robomimic HDF5: one file, many episodes (demos), of robosuite and of what writes like it.

::

    data: attribute env_args (JSON: env_name, env_kwargs with control_freq, controller_configs, robots)
      demo_<i>: actions (T, k), rewards, dones, states, obs/<name> (T, ...), next_obs/<name>
    mask/<filter key>: names of demos

robosuite's observations: joint angles in rad, ``eef_pos`` in m and ``eef_quat`` as x y z w in the
simulator's world, whose axes are the base's but whose origin is not; ``gripper_qpos`` the fingers, 0.04 m
each when a Panda's gripper is open. Its OSC controllers take actions in [-1, 1], scale them to
``output_max`` a step (m, then a rotation vector in rad), and a gripper of -1 open to 1 closed.

Files that we exported hold the episodes exactly as they were, all but the JPEGs; they are restored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.episode import STATE_FIELDS
from pipeline.episode_attributes import read_info
from pipeline.errors import InputError
from pipeline.exchange.column_mapping import ColumnMapping, Gripper, Orientation, Pose, Selection
from pipeline.exchange.foreign_episode import EpisodeReference, ForeignEpisode, camera_name
from pipeline.exchange.foreign_hdf5 import (
    is_images,
    json_attribute,
    numeric_columns,
    opened,
    stream_images,
    text,
)
from pipeline.exchange.robosuite_actions import controller_name, robosuite_action

FORMAT = "robomimic"
RATE_HZ = 20.0  # robosuite's own default
_PANDA_OPEN_M = 0.04
_ROBOTIQ_CLOSED_RAD = 0.8
_INFO_FIELDS = (
    *("id", "task", "operator", "robot", "rate_hz", "cameras", "created", "software_version"),
    *("policy_checkpoint", "operator_mark", "truncated", "extra", "missing"),
)


def is_robomimic(file: h5py.File) -> bool:
    """Whether an HDF5 file looks like robomimic's."""
    return "data" in file and any(name.startswith("demo") for name in file["data"])


def list_robomimic(path: Path) -> list[EpisodeReference]:
    """The demos of a file, in the order of their numbers."""
    with opened(path) as file:
        names = [name for name in file["data"] if name.startswith("demo")]
    if not names:
        raise InputError(f"{path} holds no demos: data/demo_0 and so on")
    size = path.stat().st_size // len(names)
    return [EpisodeReference(FORMAT, path, name, size) for name in sorted(names, key=_number)]


def _number(name: str) -> tuple[int, str]:
    digits = name.rsplit("_", 1)[-1]
    return (int(digits) if digits.isdecimal() else 1 << 60, name)


def read_robomimic(reference: EpisodeReference) -> ForeignEpisode:
    """Reads one demo's columns; images when they are asked for. Raises ``InputError`` for anything else."""
    path = reference.path
    with opened(path) as file:
        data = file["data"]
        demo = data.get(reference.key)
        if not isinstance(demo, h5py.Group) or not isinstance(demo.get("actions"), h5py.Dataset):
            raise InputError(f"{reference} is no demo: it has no actions")
        length = len(demo["actions"])
        names = [f"obs/{n}" for n, item in demo.get("obs", {}).items() if is_images(item, length)]
        columns, others = numeric_columns(demo, length, skip=tuple(names))
        arguments = json_attribute(data, "env_args")
        demo_facts = json_attribute(demo, "ep_meta")
        task = _task(data, demo, arguments, demo_facts)
        masks = sorted(
            key
            for key, members in file.get("mask", {}).items()
            if isinstance(members, h5py.Dataset) and reference.key in {text(member) for member in members[:]}
        )
        restored = _restored(demo, path) if "recap" in demo else {}
    settings = arguments.get("env_kwargs")
    settings = settings if isinstance(settings, dict) else {}
    lost = [name for name in others if not name.startswith(("recap/", "next_obs/"))]
    notes = [f"not imported: {', '.join(lost)}"] if lost else []
    if _rate(settings) is None:
        notes.append(f"it does not say its control_freq: {RATE_HZ:g} Hz unless the mapping gives rate_hz")
    mapping = _mapping(columns, settings)
    values: dict[str, Any] = {
        "tasks": (task,) if task else (),
        "rate_hz": _rate(settings) or RATE_HZ,
        "columns": columns,
        "cameras": {camera_name(n): partial(stream_images, path, f"data/{reference.key}/{n}") for n in names},
        "mapping": mapping,
        "robot": _robot(settings),
        "outcome_mark": "success" if _rewarded(columns) else None,
        "extra": {"env_args": arguments, "masks": masks, "ep_meta": demo_facts},
        "notes": tuple(notes),
        "why_no_action": ""
        if mapping.action is not None
        else f"no conversion is built in for {columns['actions'].shape[-1]} actions of the controller "
        f"{controller_name(settings)}",
        **restored,
    }
    return ForeignEpisode(FORMAT, path.stem, reference.key, length=length, **values)


def _task(data: h5py.Group, demo: h5py.Group, arguments: dict, demo_facts: dict) -> str:
    """The task in words, where LIBERO, robocasa or the environment's arguments say it."""
    settings = arguments.get("env_kwargs")
    places: list[Mapping[str, Any]] = [demo_facts, arguments, settings if isinstance(settings, dict) else {}]
    for place in places:
        for name in ("lang", "env_lang", "language_instruction", "language"):
            if isinstance(place.get(name), str) and place[name].strip():
                return str(place[name]).strip()
    for holder in (demo, data):
        for name in ("language_instruction", "lang"):
            if name in holder.attrs:
                return text(holder.attrs[name]).strip()
    said = json_attribute(data, "problem_info").get("language_instruction", "")
    return str("".join(said) if isinstance(said, list) else said).strip().strip('"')


def _rate(settings: Mapping[str, Any]) -> float | None:
    rate = settings.get("control_freq")
    return float(rate) if isinstance(rate, int | float) else None


def _robot(settings: Mapping[str, Any]) -> str | None:
    robots = settings.get("robots")
    if isinstance(robots, list):
        robots = ",".join(str(robot) for robot in robots)
    return f"robosuite {robots}" if isinstance(robots, str) and robots else None


def _rewarded(columns: Mapping[str, np.ndarray]) -> bool:
    """Whether a sparse reward of 1 says that the task was done; dense rewards say nothing certain."""
    rewards = columns.get("rewards")
    return rewards is not None and bool(np.isin(rewards, (0, 1)).all() and (rewards == 1).any())


def _mapping(columns: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> ColumnMapping:
    """Of the first robot, ``robot0``."""

    def there(name: str, *widths: int) -> bool:
        column = columns.get(f"obs/robot0_{name}")
        return column is not None and column.ndim == 2 and column.shape[1] in widths

    fingers = "obs/robot0_gripper_qpos"
    gripper = None
    if there("gripper_qpos", 2):
        gripper = Gripper(fingers, open=_PANDA_OPEN_M, closed=0.0)
    elif there("gripper_qpos", 6):
        gripper = Gripper(fingers, indices=(0,), open=0.0, closed=_ROBOTIQ_CLOSED_RAD)
    pose = None
    if there("eef_pos", 3) and there("eef_quat", 4):
        pose = Pose(
            Selection("obs/robot0_eef_pos", unit="m"),
            Orientation("obs/robot0_eef_quat", convention="quaternion_xyzw"),
        )
    return ColumnMapping(
        joint_positions=Selection("obs/robot0_joint_pos", unit="rad") if there("joint_pos", 7) else None,
        joint_velocities=Selection("obs/robot0_joint_vel", unit="rad/s") if there("joint_vel", 7) else None,
        tool_pose=pose,
        gripper_position=gripper,
        action=robosuite_action(settings, columns["actions"].shape[1:]),
    )


def _restored(demo: h5py.Group, path: Path) -> dict[str, Any]:
    """What a demo of our own export holds besides: the schema's fields and attributes as they were."""
    info = read_info(demo, path)
    recap, obs = demo["recap"], demo["obs"]
    length = len(demo["actions"])
    fields: dict[str, np.ndarray] = {}
    for name, parts in _STATE_PARTS.items():
        if all(f"robot0_{part}" in obs for part in parts):
            whole = np.concatenate([obs[f"robot0_{part}"][:] for part in parts], axis=1)
            fields[name] = whole[:, [0, 1, 2, 6, 3, 4, 5]] if name == "tool_pose" else whole
    fields |= {name: recap[name][:] for name in ("action", "policy_action")}
    kept = numeric_columns(recap["foreign"], length)[0] if "foreign" in recap else {}
    return {
        "columns": kept,
        "tasks": (info.task,),
        "rate_hz": info.rate_hz,
        "cameras": {
            camera: partial(_own_images, path, f"{demo.name}/obs/{camera}_image") for camera in info.cameras
        },
        "mapping": ColumnMapping(),
        "robot": info.robot,
        "operator": info.operator,
        "created": info.created,
        "outcome_mark": info.operator_mark,
        "sources": recap["source"][:],
        "times_ns": recap["timestamp_ns"][:],
        "camera_times_ns": {c: recap[f"camera_timestamp_ns/{c}"][:] for c in info.cameras},
        "restored": fields,
        "restored_info": {
            **{name: getattr(info, name) for name in _INFO_FIELDS},
            "fingerprint": text(demo.attrs.get("fingerprint", "")),
        },
        "extra": {},
        "notes": (),
    }


_STATE_PARTS: dict[str, tuple[str, ...]] = {
    "joint_positions": ("joint_pos",),
    "joint_velocities": ("joint_vel",),
    "tool_pose": ("eef_pos", "eef_quat"),
    "gripper_position": ("gripper_qpos",),
    "tool_wrench": ("ee_force", "ee_torque"),
}
assert set(_STATE_PARTS) == {f.name for f in STATE_FIELDS}


def _own_images(path: Path, name: str) -> Iterator[np.ndarray]:
    return stream_images(path, name)
