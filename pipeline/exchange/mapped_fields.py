"""Applies a :class:`pipeline.exchange.column_mapping.ColumnMapping`: columns in, fields of our schema out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.episode import JOINT_COUNT, STATE_FIELDS
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, from_space, tool_poses
from pipeline.exchange.column_mapping import (
    UNITS,
    Action,
    ColumnMapping,
    Gripper,
    Orientation,
    Pose,
    Selection,
)
from pipeline.exchange.orientations import quaternions

GEN3_ROBOTS = ("kinova_gen3", "simulated_gen3")
"""Robots whose tool pose follows from the joints by :mod:`pipeline.gen3_kinematics`."""


@dataclass(frozen=True)
class MappedFields:
    """``state`` and ``action`` of T frames as our schema has them; NaN in all that ``missing`` names."""

    state: dict[str, np.ndarray]
    action: np.ndarray
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Recording:
    """What is needed of a recording to map it: its columns, their components' names, rate and robot."""

    columns: Mapping[str, np.ndarray]
    component_names: Mapping[str, tuple[str, ...]]
    length: int
    rate_hz: float
    robot: str


def mapped_fields(recording: Recording, mapping: ColumnMapping) -> MappedFields:
    """The state (T, k) and the action (T, 7), float32, as ``mapping`` reads them.

    The tool pose is computed from the joints where only those are mapped and the robot is a Gen3.
    Raises ``InputError`` that names the column and what is wrong: it is not there, has not that many
    components, or holds NaN.
    """
    state: dict[str, np.ndarray] = {}
    for name in ("joint_positions", "joint_velocities", "tool_wrench"):
        selection = getattr(mapping, name)
        if selection is not None:
            width = 6 if name == "tool_wrench" else JOINT_COUNT
            state[name] = selected(recording, selection, width, name)
    if mapping.tool_pose is not None:
        state["tool_pose"] = pose(recording, mapping.tool_pose, "tool_pose")
    elif "joint_positions" in state and recording.robot in GEN3_ROBOTS:
        state["tool_pose"] = tool_poses(state["joint_positions"])
    if mapping.gripper_position is not None:
        state["gripper_position"] = gripper(recording, mapping.gripper_position, "gripper_position")
    for name, values in state.items():
        _require_finite(name, values)
    origin = mapping.tool_pose.origin if mapping.tool_pose is not None else ()
    action = None if mapping.action is None else _action(recording, mapping.action, origin, state)
    if action is not None:
        _require_finite("action", action)
    missing = [f.name for f in STATE_FIELDS if f.name not in state]
    if action is None:
        missing.append("action")
    nothing = {f.name: np.full((recording.length, *f.shape), np.nan) for f in STATE_FIELDS}
    return MappedFields(
        state={name: np.asarray(values, dtype=np.float32) for name, values in {**nothing, **state}.items()},
        action=np.full((recording.length, 7), np.nan, np.float32) if action is None else action,
        missing=tuple(missing),
    )


def selected(recording: Recording, selection: Selection, width: int | None, what: str) -> np.ndarray:
    """The selected components (T, width) in our unit, float64; any number of them for ``width`` ``None``."""
    if selection.column not in recording.columns:
        names = ", ".join(sorted(recording.columns)) or "none"
        raise InputError(f"{what}: there is no column {selection.column!r}; there are {names}"[:400])
    values = recording.columns[selection.column]
    values = values.reshape(recording.length, -1)
    indices = selection.indices
    if selection.components:
        known = recording.component_names.get(selection.column, ())
        unknown = [name for name in selection.components if name not in known]
        if unknown:
            raise InputError(
                f"{what}: column {selection.column!r} has no component {unknown[0]!r}; "
                f"it has {', '.join(known) or 'no named ones'}"[:400]
            )
        indices = tuple(known.index(name) for name in selection.components)
    if indices:
        if max(indices) >= values.shape[1]:
            raise InputError(
                f"{what}: column {selection.column!r} has {values.shape[1]} components, there is no index "
                f"{max(indices)}"
            )
        values = values[:, list(indices)]
    if width is not None and values.shape[1] != width:
        raise InputError(
            f"{what}: needs {width} numbers a frame, column {selection.column!r} gives {values.shape[1]}: "
            "select them with 'indices'"
        )
    return values.astype(np.float64) * UNITS[selection.unit]


def pose(recording: Recording, mapping: Pose, what: str) -> np.ndarray:
    """Position in m and unit quaternion w x y z in base, float64 (T, 7)."""
    origin = np.array(mapping.origin or (0.0, 0.0, 0.0))
    if mapping.whole is not None:
        values = selected(recording, mapping.whole, 7, what)
        values[:, :3] -= origin
        length = np.linalg.norm(values[:, 3:], axis=1)
        if (np.abs(length - 1) > 1e-3).any():
            raise InputError(f"{what}: column {mapping.whole.column!r} does not hold unit quaternions")
        return values
    assert mapping.position is not None and mapping.orientation is not None  # checked when it was built
    position = selected(recording, mapping.position, 3, f"{what}.position") - origin
    return np.concatenate([position, _turned(recording, mapping.orientation, f"{what}.orientation")], axis=1)


def gripper(recording: Recording, mapping: Gripper, what: str) -> np.ndarray:
    """0 fully open to 1 fully closed, float64 (T, 1)."""
    values = selected(recording, mapping, None, what)
    one = values if values.shape[1] == 1 else np.abs(values).mean(axis=1, keepdims=True)
    return np.clip((one - mapping.open) / (mapping.closed - mapping.open), 0.0, 1.0)


def _turned(recording: Recording, mapping: Orientation, what: str) -> np.ndarray:
    return quaternions(mapping.convention, selected(recording, mapping, None, what))


def _action(
    recording: Recording, mapping: Action, origin: tuple[float, ...], state: dict[str, np.ndarray]
) -> np.ndarray | None:
    """Twists and gripper targets, float32 (T, 7); ``None`` where the state lacks what the space needs."""
    absolute = mapping.space in (ActionSpace.ABSOLUTE_POSE, ActionSpace.JOINT_POSITIONS)
    if absolute and "tool_pose" not in state:
        return None
    if mapping.space is ActionSpace.JOINT_POSITIONS and recording.robot not in GEN3_ROBOTS:
        return None
    nothing = np.full((recording.length, 7), np.nan)
    actions = from_space(
        mapping.space,
        _action_numbers(recording, mapping, origin),
        state.get("tool_pose", nothing),
        state.get("joint_positions", nothing),
        recording.rate_hz,
    )
    if mapping.enabled:
        sent = selected(recording, Selection(mapping.enabled), 1, "action.enabled")[:, 0] > 0
        actions[~sent, :6] = 0.0
        if "gripper_position" in state:
            actions[~sent, 6] = state["gripper_position"][~sent, 0]
    return actions


def _action_numbers(recording: Recording, mapping: Action, origin: tuple[float, ...]) -> np.ndarray:
    """The recorded actions in the order of :func:`pipeline.exchange.action_spaces.action_names`."""
    if mapping.whole is not None:
        return selected(recording, mapping.whole, None, "action")
    assert mapping.gripper is not None  # checked when it was built
    closing = gripper(recording, mapping.gripper, "action.gripper")
    if mapping.joints is not None:
        return np.concatenate([selected(recording, mapping.joints, 7, "action.joints"), closing], axis=1)
    assert mapping.translation is not None
    if mapping.space is ActionSpace.ABSOLUTE_POSE:
        target = pose(recording, Pose(mapping.translation, mapping.rotation, origin=origin), "action")
        return np.concatenate([target, closing], axis=1)
    moved = selected(recording, mapping.translation, 3, "action.translation")
    if mapping.rotation is None:
        turned = np.zeros_like(moved)
    else:
        turned = selected(recording, mapping.rotation, 3, "action.rotation")
    motion = np.concatenate([moved, turned], axis=1)
    if mapping.clip:
        motion = np.clip(motion, -1.0, 1.0)
    if mapping.scale:
        motion = motion * np.array(mapping.scale)
    if mapping.offset:
        motion = motion + np.array(mapping.offset)
    if mapping.rotation is not None and mapping.rotation.convention.startswith("euler"):
        motion[:, 3:] = _vector_of(mapping.rotation.convention, motion[:, 3:])
    return np.concatenate([motion, closing], axis=1)


def _vector_of(convention: str, angles: np.ndarray) -> np.ndarray:
    from pipeline.exchange.rotations import to_rotation_vector

    return to_rotation_vector(quaternions(convention, angles))


def _require_finite(name: str, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise InputError(f"{name} is not a finite number in frame {bad[0]}: the recording is damaged there")
