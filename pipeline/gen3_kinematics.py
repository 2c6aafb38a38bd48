"""Kinematics of the 7-joint Kinova Gen3: tool pose, Jacobian, and tool twist to joint velocities.

Needs numpy only. Frames: *base* is the robot's base link (x forward, y left, z up); *tool* is the
centre between the finger tips of an 85 mm two-finger gripper, z along the fingers, x the direction
in which the fingers move. Joint angles are in radians and unwrapped, joint 1 first.

The link table is the geometry that Kinova publishes for the arm (BSD-3 licensed description).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Link:
    """One moving link: its frame in its parent's at joint angle zero. The joint turns about z.

    ``position`` in m; ``quaternion`` is ``w x y z``, not normalised; ``limit`` in rad either side of
    zero (infinite for a continuous joint); ``mass`` in kg; ``peak_torque`` in N·m.
    """

    name: str
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    limit: float
    mass: float
    peak_torque: float


LINKS: tuple[Link, ...] = (
    Link("shoulder_link", (0, 0, 0.15643), (0, 1, 0, 0), np.inf, 1.377, 105),
    Link("half_arm_1_link", (0, 0.005375, -0.12838), (1, 1, 0, 0), 2.24, 1.16, 105),
    Link("half_arm_2_link", (0, -0.21038, -0.006375), (1, -1, 0, 0), np.inf, 1.16, 105),
    Link("forearm_link", (0, 0.006375, -0.21038), (1, 1, 0, 0), 2.57, 0.93, 105),
    Link("spherical_wrist_1_link", (0, -0.20843, -0.006375), (1, -1, 0, 0), np.inf, 0.678, 52),
    Link("spherical_wrist_2_link", (0, 0.00017505, -0.10593), (1, 1, 0, 0), 2.09, 0.678, 52),
    Link("bracelet_link", (0, -0.10593, -0.00017505), (1, -1, 0, 0), np.inf, 0.5, 52),
)
GRIPPER_BASE_POSITION = (0.0, 0.0, -0.061525)  # in the bracelet's frame, m
GRIPPER_BASE_QUATERNION = (0.0, 1.0, 0.0, 0.0)
TOOL_OFFSET = 0.145  # tool centre beyond the gripper's base along its z, m
JOINT_LIMITS = np.array([link.limit for link in LINKS])  # rad, symmetric about zero

HOME = np.array([0.0, 0.2618, 3.1416, -2.2689, 0.0, 0.9599, 1.5708])
"""The pose that Kinova's controller calls Home: the gripper looks forward."""

READY = np.array([0.0, 0.37317, 3.14159, -1.53534, 0.0, -1.23308, 1.5708])
"""Where episodes start: the tool at x 0.45, y 0, z 0.26 m in base, pointing straight down."""


def rotation_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of a quaternion ``w x y z`` (4,) of any non-zero length."""
    w, x, y, z = np.asarray(quaternion, dtype=float) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion ``w x y z`` (4,) of a rotation matrix (3, 3), with ``w ≥ 0``.

    Shepperd's method: the largest of the four components is found first, so nothing small divides.
    """
    r = rotation
    squares = np.array([r.trace(), r[0, 0], r[1, 1], r[2, 2]])
    i = int(np.argmax(squares))
    if i == 0:
        q = np.array([1 + r.trace(), r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    else:
        a, b, c = ((0, 1, 2), (1, 2, 0), (2, 0, 1))[i - 1]
        q = np.empty(4)
        q[0] = r[c, b] - r[b, c]
        q[1 + a] = 1 + r[a, a] - r[b, b] - r[c, c]
        q[1 + b] = r[b, a] + r[a, b]
        q[1 + c] = r[c, a] + r[a, c]
    q /= np.linalg.norm(q)
    return q if q[0] >= 0 else -q


def _transform(position: tuple[float, ...], quaternion: tuple[float, ...]) -> np.ndarray:
    transform = np.eye(4)
    transform[:3, :3] = rotation_from_quaternion(np.array(quaternion))
    transform[:3, 3] = position
    return transform


_LINK_TRANSFORMS = np.stack([_transform(link.position, link.quaternion) for link in LINKS])
_NO_TURNS = np.tile(np.eye(4), (7, 1, 1))
_TOOL_TRANSFORM = _transform(GRIPPER_BASE_POSITION, GRIPPER_BASE_QUATERNION) @ _transform(
    (0, 0, TOOL_OFFSET), (1, 0, 0, 0)
)


def joint_frames(joints: np.ndarray) -> np.ndarray:
    """Frames of the seven links and of the tool in base, (8, 4, 4), at joint angles (7,) in rad."""
    turns = _NO_TURNS.copy()
    turns[:, 0, 0] = turns[:, 1, 1] = np.cos(joints)
    turns[:, 1, 0] = np.sin(joints)
    turns[:, 0, 1] = -turns[:, 1, 0]
    steps = _LINK_TRANSFORMS @ turns
    frames = np.empty((8, 4, 4))
    frame = np.eye(4)
    for i in range(7):
        frames[i] = frame = frame @ steps[i]
    frames[7] = frame @ _TOOL_TRANSFORM
    return frames


def tool_pose(joints: np.ndarray) -> np.ndarray:
    """The tool's pose in base, a homogeneous transform (4, 4) in m, at joint angles (7,) in rad."""
    return joint_frames(joints)[7]


def jacobian(joints: np.ndarray) -> np.ndarray:
    """Geometric Jacobian (6, 7) in base: joint velocities in rad/s to tool twist in m/s, rad/s."""
    frames = joint_frames(joints)
    axes = frames[:7, :3, 2]
    lever = frames[7, :3, 3] - frames[:7, :3, 3]
    # The cross product written out: np.cross costs four times as much on arrays this small.
    ax, ay, az = axes.T
    lx, ly, lz = lever.T
    return np.stack([ay * lz - az * ly, az * lx - ax * lz, ax * ly - ay * lx, ax, ay, az])


@dataclass(frozen=True)
class TwistSolver:
    """Tool twist to joint velocities by damped least squares, with a null-space pull to a posture.

    ``damping`` (λ) bounds joint speed near singular poses: q̇ = Jᵀ(JJᵀ + λ²I)⁻¹ v, after Nakamura and
    Hanafusa (1986). The free seventh direction pulls towards ``posture`` at ``posture_gain`` per
    second. Joints stay ``limit_margin`` rad inside their limits and under ``speed_limit`` rad/s; when
    one would exceed it the whole motion slows, so that the tool keeps its direction.
    """

    posture: tuple[float, ...] = tuple(READY)
    damping: float = 0.02
    posture_gain: float = 1.0
    limit_margin: float = 0.05
    speed_limit: float = 1.2

    def velocities(self, joints: np.ndarray, twist: np.ndarray, step_s: float) -> np.ndarray:
        """Joint velocities (7,) in rad/s for a tool twist (6,) in base, held for ``step_s`` seconds.

        A zero twist gives zero velocities: the posture is only pulled at while the tool moves, as an
        arm that creeps while told to hold still frightens people.
        """
        motion = float(np.abs(twist).max())
        if motion < 1e-9:
            return np.zeros(7)
        jac = jacobian(joints)
        gram = jac @ jac.T
        gram[np.diag_indices(6)] += self.damping**2
        pull = (np.array(self.posture) - joints) * (self.posture_gain * min(1.0, motion / 0.1))
        velocities = pull + jac.T @ np.linalg.solve(gram, twist - jac @ pull)
        fastest = np.abs(velocities).max()
        if fastest > self.speed_limit:
            velocities *= self.speed_limit / fastest
        room = JOINT_LIMITS - self.limit_margin
        return np.clip(velocities, (-room - joints) / step_s, (room - joints) / step_s)
