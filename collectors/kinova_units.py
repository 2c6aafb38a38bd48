"""Units between the arm and us: degrees, percent and wrapped angles there; rad, 0..1 and unwrapped here.

A state is a float64 ``(28,)`` in the order of ``pipeline.episode.STATE_NAMES``: joint positions (rad,
unwrapped), joint velocities (rad/s), tool pose in base (m, quaternion ``w x y z``), gripper (0 open to 1
closed), external wrench at the tool (N, N·m).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.episode import STATE_NAMES
from pipeline.exchange import rotations
from pipeline.gen3_kinematics import HOME, JOINT_LIMITS

JOINTS = slice(0, 7)
JOINT_VELOCITIES = slice(7, 14)
TOOL_POSITION = slice(14, 17)
TOOL_QUATERNION = slice(17, 21)
GRIPPER = 21
WRENCH = slice(22, 28)
STATE_SIZE = len(STATE_NAMES)

# Around which value an angle that has no history is placed: zero for the joints with limits, Home for those
# that turn endlessly. Joint 3 stands near 180° in usual postures; around zero, it would jump between +180°
# and -180° from session to session.
_CENTRES = np.where(np.isfinite(JOINT_LIMITS), 0.0, HOME)


def nearest_turn(angles: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``angles`` plus the whole turns that bring each nearest to ``reference``; both in rad, any shape."""
    return angles + 2 * np.pi * np.round((reference - angles) / (2 * np.pi))


def quaternion_from_degrees(theta: np.ndarray) -> np.ndarray:
    """Unit quaternion ``w x y z`` (4,) of the arm's ``theta_x/y/z`` (3,) in degrees.

    These are turns about the fixed axes x, then y, then z.
    """
    half = np.deg2rad(np.asarray(theta, dtype=np.float64)) / 2
    (cx, cy, cz), (sx, sy, sz) = np.cos(half), np.sin(half)
    return np.array(
        [
            cz * cy * cx + sz * sy * sx,
            cz * cy * sx - sz * sy * cx,
            cz * sy * cx + sz * cy * sx,
            sz * cy * cx - cz * sy * sx,
        ]
    )


def degrees_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """The inverse of :func:`quaternion_from_degrees`: ``theta_x/y/z`` (3,) in degrees."""
    w, x, y, z = rotations.normalised(np.asarray(quaternion))
    return np.rad2deg(
        [
            np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            np.arcsin(np.clip(2 * (w * y - z * x), -1.0, 1.0)),
            np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
        ]
    )


def twist_to_arm(twist: np.ndarray) -> tuple[float, ...]:
    """A twist (6,) in m/s and rad/s as the six numbers of the arm's message: m/s, then degrees per second."""
    return (*(float(v) for v in twist[:3]), *(float(v) for v in np.rad2deg(twist[3:6])))


def joints_to_arm(joints: np.ndarray) -> list[float]:
    """Joint angles (7,) in rad as the arm wants them: degrees in 0..360."""
    degrees = np.mod(np.rad2deg(np.asarray(joints, dtype=np.float64)), 360.0)
    return [float(d) for d in degrees]


class StateReader:
    """Turns the arm's feedback messages into states; remembers the last to unwrap angles and keep signs."""

    def __init__(self) -> None:
        """Without history: angles start near Home, the quaternion with a positive largest component."""
        self._joints = _CENTRES.copy()
        self._quaternion: np.ndarray | None = None

    def read(self, feedback: Any) -> np.ndarray:
        """The state (28,) of one feedback message. Raises ``ValueError`` for fewer than 7 joints or NaN.

        An arm without a gripper reads as an open one.
        """
        actuators = list(feedback.actuators)
        if len(actuators) < 7:
            raise ValueError(f"the arm reports {len(actuators)} joints; this driver is for the 7-joint Gen3")
        base = feedback.base
        state = np.empty(STATE_SIZE)
        wrapped = np.deg2rad([a.position for a in actuators[:7]])
        self._joints = nearest_turn(wrapped, self._joints)
        state[JOINTS] = self._joints
        state[JOINT_VELOCITIES] = np.deg2rad([a.velocity for a in actuators[:7]])
        state[TOOL_POSITION] = base.tool_pose_x, base.tool_pose_y, base.tool_pose_z
        theta = (base.tool_pose_theta_x, base.tool_pose_theta_y, base.tool_pose_theta_z)
        state[TOOL_QUATERNION] = self._signed(quaternion_from_degrees(np.array(theta)))
        motors = feedback.interconnect.gripper_feedback.motor
        state[GRIPPER] = min(max(motors[0].position / 100.0, 0.0), 1.0) if len(motors) else 0.0
        state[WRENCH] = (
            base.tool_external_wrench_force_x,
            base.tool_external_wrench_force_y,
            base.tool_external_wrench_force_z,
            base.tool_external_wrench_torque_x,
            base.tool_external_wrench_torque_y,
            base.tool_external_wrench_torque_z,
        )
        if not np.isfinite(state).all():
            raise ValueError("the arm's feedback holds values that are no numbers")
        return state

    def _signed(self, quaternion: np.ndarray) -> np.ndarray:
        before = self._quaternion
        if before is None:
            flip = quaternion[np.argmax(np.abs(quaternion))] < 0
        else:
            flip = float(quaternion @ before) < 0
        self._quaternion = -quaternion if flip else quaternion
        return self._quaternion
