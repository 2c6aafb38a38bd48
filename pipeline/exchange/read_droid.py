"""Raw DROID: a folder an episode, with ``trajectory.h5``, ``metadata_*.json`` and ``recordings/``.

::

    trajectory.h5: attributes success, failure, current_task, user, robot_serial_number, ...
      observation/robot_state/joint_positions      (T, 7) rad
      observation/robot_state/joint_velocities     (T, 7) rad/s
      observation/robot_state/cartesian_position   (T, 6) in base: m, then Euler angles about fixed x, y, z
      observation/robot_state/gripper_position     (T,)   0 open to 1 closed
      observation/controller_info/movement_enabled (T,)   whether the action was sent
      observation/timestamp/robot_state/read_start (T,)   ms since 1970
      observation/timestamp/cameras/<serial>_estimated_capture   (T,) ms since 1970
      observation/camera_type/<serial>             (T,)   0 for the camera on the hand
      action/cartesian_position, action/gripper_position          the targets of the step
    recordings/MP4/<serial>.mp4   the left image of each stereo camera, one frame a step

The action is the pose steered for, ``action/cartesian_position``; a step with the controller's button
released sent nothing. Recordings with SVO files only need the ZED SDK to make the MP4 files first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.exchange.column_mapping import Action, ColumnMapping, Gripper, Orientation, Pose, Selection
from pipeline.exchange.foreign_episode import EpisodeReference, ForeignEpisode
from pipeline.exchange.foreign_hdf5 import numeric_columns, opened, text
from pipeline.exchange.foreign_video import video_images, video_length

FORMAT = "droid"
TRAJECTORY = "trajectory.h5"
RATE_HZ = 15.0
_STATE = "observation/robot_state"
_ENABLED = "observation/controller_info/movement_enabled"
_TIMES = "observation/timestamp"
_HAND_CAMERA = 0
_MIN_SHARE = 0.9  # of the steps that every video must have, or it is another recording's


def is_droid(file: h5py.File) -> bool:
    """Whether an HDF5 file looks like a DROID trajectory."""
    return _STATE in file


def list_droid(path: Path) -> list[EpisodeReference]:
    """The one episode of a folder, or of its ``trajectory.h5``."""
    folder = path.parent if path.name == TRAJECTORY else path
    sizes = [p.stat().st_size for p in (folder / "recordings" / "MP4").glob("*.mp4")]
    return [EpisodeReference(FORMAT, folder, size_bytes=sum(sizes))]


def read_droid(reference: EpisodeReference) -> ForeignEpisode:
    """Reads the columns; images when they are asked for. Raises ``InputError`` for anything else."""
    folder = reference.path
    facts = _metadata(folder)
    with opened(folder / TRAJECTORY) as file:
        steps = file.get(f"{_STATE}/joint_positions")
        if not isinstance(steps, h5py.Dataset) or "action" not in file:
            raise InputError(f"{folder / TRAJECTORY} holds no steps: it lacks {_STATE} or action")
        length = len(steps)
        columns, others = numeric_columns(file, length)
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
    facts = {**attributes, **facts}
    videos, notes = _videos(folder, columns, facts)
    shown = _shortest(videos, length)
    if shown < length:
        notes.append(f"the last {length - shown} steps have no image and are left out")
        columns = {name: values[:shown] for name, values in columns.items()}
    if others:
        notes.append(f"not imported: {', '.join(sorted(others))}")
    times = columns.get(f"{_TIMES}/robot_state/read_start")
    success = facts.get("success")
    return ForeignEpisode(
        format=FORMAT,
        dataset=str(facts.get("lab") or "droid"),
        name=str(facts.get("uuid") or folder.resolve().name),
        tasks=(str(facts["current_task"]),) if facts.get("current_task") else (),
        rate_hz=RATE_HZ,
        length=shown,
        columns=columns,
        cameras={v.name: partial(video_images, v.path, shown) for v in videos},
        mapping=_mapping(columns),
        robot="franka_panda",
        operator=str(facts["user"]) if facts.get("user") else None,
        outcome_mark=None if success is None else ("success" if success else "failure"),
        times_ns=_nanoseconds(times),
        camera_times_ns={v.name: t for v in videos if (t := _capture_times(columns, v.serial)) is not None},
        extra={"metadata": facts},
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Video:
    name: str
    serial: str
    path: Path


def _metadata(folder: Path) -> dict[str, Any]:
    """What ``metadata_*.json`` says; nothing where there is none."""
    for path in sorted(folder.glob("metadata_*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        if isinstance(values, dict):
            return {str(name): value for name, value in values.items() if np.ndim(value) == 0}
    return {}


def _videos(
    folder: Path, columns: dict[str, np.ndarray], facts: dict[str, Any]
) -> tuple[list[_Video], list[str]]:
    """The videos of single images, named ``wrist``, ``ext1``, ``ext2`` as DROID names the cameras."""
    found = {p.stem: p for p in sorted((folder / "recordings" / "MP4").glob("*.mp4")) if "-" not in p.stem}
    if not found:
        if any((folder / "recordings").rglob("*.svo*")):
            raise InputError(
                f"{folder}: the images are in SVO files only, which nothing but the ZED SDK reads: convert "
                "them to recordings/MP4/<serial>.mp4 first"
            )
        return [], ["there are no videos"]
    names = {str(facts.get(f"{name}_cam_serial")): name for name in ("wrist", "ext1", "ext2")}
    if not any(serial in names for serial in found):
        names = _names_by_type(columns, sorted(found))
    return [_Video(names.get(serial, f"camera_{serial}"), serial, path) for serial, path in found.items()], []


def _names_by_type(columns: dict[str, np.ndarray], serials: list[str]) -> dict[str, str]:
    names, outside = {}, 0
    for serial in serials:
        kind = columns.get(f"observation/camera_type/{serial}")
        if kind is None:
            continue
        if int(kind.ravel()[0]) == _HAND_CAMERA:
            names[serial] = "wrist"
        else:
            outside += 1
            names[serial] = f"ext{outside}"
    return names


def _shortest(videos: list[_Video], length: int) -> int:
    shown = length
    for video in videos:
        frames = video_length(video.path)
        if frames < _MIN_SHARE * length:
            raise InputError(f"{video.path} has {frames} frames for {length} steps: it is cut short")
        shown = min(shown, frames)
    return shown


def _mapping(columns: dict[str, np.ndarray]) -> ColumnMapping:
    first, last = (0, 1, 2), (3, 4, 5)
    target = "action/cartesian_position"
    action = None
    if target in columns and "action/gripper_position" in columns:
        action = Action(
            ActionSpace.ABSOLUTE_POSE,
            gripper=Gripper("action/gripper_position"),
            translation=Selection(target, indices=first, unit="m"),
            rotation=Orientation(target, indices=last, unit="rad", convention="euler_xyz"),
            enabled=_ENABLED if _ENABLED in columns else "",
        )
    here = {
        name: f"{_STATE}/{name}" for name in ("joint_velocities", "cartesian_position", "gripper_position")
    }
    pose = here["cartesian_position"]
    return ColumnMapping(
        joint_positions=Selection(f"{_STATE}/joint_positions", unit="rad"),
        joint_velocities=_if_there(columns, Selection(here["joint_velocities"], unit="rad/s")),
        tool_pose=Pose(
            Selection(pose, indices=first, unit="m"),
            Orientation(pose, indices=last, unit="rad", convention="euler_xyz"),
        )
        if pose in columns
        else None,
        gripper_position=_if_there(columns, Gripper(here["gripper_position"])),
        action=action,
    )


def _if_there[S: Selection](columns: dict[str, np.ndarray], selection: S) -> S | None:
    return selection if selection.column in columns else None


def _nanoseconds(times_ms: np.ndarray | None) -> np.ndarray | None:
    if times_ms is None or times_ms.ndim != 1 or not (times_ms > 0).all():
        return None
    return times_ms.astype(np.int64) * 1_000_000


def _capture_times(columns: dict[str, np.ndarray], serial: str) -> np.ndarray | None:
    for suffix in ("estimated_capture", "frame_received"):
        times = _nanoseconds(columns.get(f"{_TIMES}/cameras/{serial}_{suffix}"))
        if times is not None:
            return times
    return None


def _plain(value: Any) -> Any:
    """An attribute as JSON holds it."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float) else text(value)
