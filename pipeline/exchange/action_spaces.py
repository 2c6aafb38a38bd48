"""Action spaces: what a frame's action may mean to other projects, converted from ours and back.

Ours is the *twist*. A frame's action is held for one control period, ``1 / rate_hz`` seconds, so a twist
and the tool pose that was observed give the pose it steers for, and the other way round.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache

import numpy as np

from pipeline.episode import ACTION_NAMES, JOINT_COUNT, STATE_FIELDS
from pipeline.errors import InputError
from pipeline.exchange import rotations
from pipeline.gen3_kinematics import joint_frames


class ActionSpace(StrEnum):
    """What the numbers of an action say. The gripper's target, 0 open to 1 closed, is always the last."""

    TWIST = "twist"
    """Linear m/s and angular rad/s of the tool in base; (7,). What the episodes hold."""
    DELTA_POSE = "delta_pose"
    """Change of the tool's position, m, and rotation vector, rad, in base over one period; (7,).

    The rotation is applied on the left: the new orientation is exp(vector) times the old one.
    """
    ABSOLUTE_POSE = "absolute_pose"
    """The pose steered for, in base: position, m, and quaternion w x y z; (8,).

    It is the observed tool pose moved by the delta. Quaternions keep their sign from row to row
    (:func:`pipeline.exchange.rotations.continuous`): with ``w ≥ 0`` instead, a tool that points down,
    whose w is about 0, would jump between two signs.
    """
    JOINT_POSITIONS = "joint_positions"
    """The joints, rad, observed at the next frame, the last frame's repeated; (8,). What the arm did.

    Not the action sent, so it does not turn back into it: see :func:`from_space`.
    """


_COMPONENTS = {f.name: f.component_names for f in STATE_FIELDS}
_NAMES: dict[ActionSpace, tuple[str, ...]] = {
    ActionSpace.TWIST: ACTION_NAMES,
    ActionSpace.DELTA_POSE: (
        *("tool.dx", "tool.dy", "tool.dz", "tool.rx", "tool.ry", "tool.rz"),
        ACTION_NAMES[-1],
    ),
    ActionSpace.ABSOLUTE_POSE: (*_COMPONENTS["tool_pose"], ACTION_NAMES[-1]),
    ActionSpace.JOINT_POSITIONS: (*_COMPONENTS["joint_positions"], ACTION_NAMES[-1]),
}
_UNITS: dict[ActionSpace, str] = {
    ActionSpace.TWIST: "m/s, rad/s, 1",
    ActionSpace.DELTA_POSE: "m, rad, 1",
    ActionSpace.ABSOLUTE_POSE: "m, quaternion, 1",
    ActionSpace.JOINT_POSITIONS: "rad, 1",
}


def action_names(space: ActionSpace) -> tuple[str, ...]:
    """The names of an action's components, in order; as many as the action has."""
    return _NAMES[ActionSpace(space)]


def action_units(space: ActionSpace) -> str:
    """The units of an action's parts, in words."""
    return _UNITS[ActionSpace(space)]


def to_space(
    space: ActionSpace,
    actions: np.ndarray,
    tool_pose: np.ndarray,
    joint_positions: np.ndarray,
    rate_hz: float,
) -> np.ndarray:
    """An episode's actions in ``space``, float32 (T, k), k as many as :func:`action_names`.

    ``actions`` (T, 7) are twists, ``tool_pose`` (T, 7) and ``joint_positions`` (T, 7) the episode's
    state, ``rate_hz`` its control rate. All T frames of an episode must come in one call. Where what a
    space needs is NaN, its actions are. Raises ``InputError`` for arrays that do not fit.
    """
    space = ActionSpace(space)
    twist = _checked("actions", actions, len(actions), ActionSpace.TWIST)
    pose, joints = _checked_state(tool_pose, joint_positions, len(twist), rate_hz)
    gripper = twist[:, 6:]
    if space is ActionSpace.TWIST:
        return np.array(actions, dtype=np.float32)
    if space is ActionSpace.JOINT_POSITIONS:
        reached = np.concatenate([joints[1:], joints[-1:]])
        return np.concatenate([reached, gripper], axis=1).astype(np.float32)
    delta = twist[:, :6] / rate_hz
    if space is ActionSpace.DELTA_POSE:
        moved = delta
    else:
        turned = rotations.product(
            rotations.from_rotation_vector(delta[:, 3:]), rotations.normalised(pose[:, 3:])
        )
        moved = np.concatenate([pose[:, :3] + delta[:, :3], rotations.continuous(turned)], axis=1)
    return np.concatenate([moved, gripper], axis=1).astype(np.float32)


def from_space(
    space: ActionSpace,
    actions: np.ndarray,
    tool_pose: np.ndarray,
    joint_positions: np.ndarray,
    rate_hz: float,
) -> np.ndarray:
    """The inverse of :func:`to_space`: twists, float32 (T, 7), of ``actions`` (T, k) in ``space``.

    From ``delta_pose`` and ``absolute_pose`` the twist comes back to the precision of float32 (of a
    position of 1 m: 6e-8 m times the rate, in m/s), as long as it turns less than half a turn a period.
    From ``joint_positions`` it is the twist that moves the observed tool pose in one period to where
    the Gen3's forward kinematics put the joints: what the arm did, for a Gen3 with our tool only.
    Raises ``InputError`` for arrays that do not fit.
    """
    space = ActionSpace(space)
    values = _checked("actions", actions, len(actions), space)
    pose, _ = _checked_state(tool_pose, joint_positions, len(values), rate_hz)
    if space is ActionSpace.TWIST:
        return np.array(actions, dtype=np.float32)
    if space is ActionSpace.DELTA_POSE:
        delta = values[:, :6]
    else:
        target = values[:, :7] if space is ActionSpace.ABSOLUTE_POSE else tool_poses(values[:, :JOINT_COUNT])
        turn = rotations.product(
            rotations.normalised(target[:, 3:]), rotations.conjugate(rotations.normalised(pose[:, 3:]))
        )
        delta = np.concatenate([target[:, :3] - pose[:, :3], rotations.to_rotation_vector(turn)], axis=1)
    return np.concatenate([delta * rate_hz, values[:, -1:]], axis=1).astype(np.float32)


def tool_poses(joint_positions: np.ndarray) -> np.ndarray:
    """The Gen3's tool poses in base, float64 (T, 7): position in m, quaternion w x y z, at joints (T, 7) rad.

    The same as :func:`pipeline.gen3_kinematics.tool_pose` row by row, for many rows at once.
    """
    joints = np.asarray(joint_positions, dtype=np.float64)
    steps = _steps_at_zero()
    frames = np.broadcast_to(np.eye(4), (len(joints), 4, 4))
    for i in range(JOINT_COUNT):
        turn = np.zeros((len(joints), 4, 4))
        turn[:, 2, 2] = turn[:, 3, 3] = 1.0
        turn[:, 0, 0] = turn[:, 1, 1] = np.cos(joints[:, i])
        turn[:, 1, 0] = np.sin(joints[:, i])
        turn[:, 0, 1] = -turn[:, 1, 0]
        frames = frames @ steps[i] @ turn
    frames = frames @ steps[JOINT_COUNT]
    quaternions = rotations.continuous(rotations.from_matrix(frames[:, :3, :3]))
    return np.concatenate([frames[:, :3, 3], quaternions], axis=1)


@cache
def _steps_at_zero() -> np.ndarray:
    """Each link's frame, and the tool's, in the frame before it with all joints at zero: (8, 4, 4)."""
    frames = joint_frames(np.zeros(JOINT_COUNT))
    before = np.concatenate([np.eye(4)[None], frames[:-1]])
    return np.linalg.solve(before, frames)


def _checked(name: str, values: np.ndarray, length: int, space: ActionSpace) -> np.ndarray:
    shape = (length, len(action_names(space)))
    if values.shape != shape:
        raise InputError(f"{name} has shape {values.shape}, in the action space {space} it must be {shape}")
    return np.asarray(values, dtype=np.float64)


def _checked_state(
    tool_pose: np.ndarray, joint_positions: np.ndarray, length: int, rate_hz: float
) -> tuple[np.ndarray, np.ndarray]:
    if not (np.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"the control rate is {rate_hz} Hz, it must be above 0")
    for name, values in (("tool_pose", tool_pose), ("joint_positions", joint_positions)):
        if values.shape != (length, JOINT_COUNT):
            raise InputError(f"{name} has shape {values.shape} for {length} actions, expected ({length}, 7)")
    return np.asarray(tool_pose, dtype=np.float64), np.asarray(joint_positions, dtype=np.float64)
