"""The limits on an arm's motion: speed, workspace box, joint-limit margin. Each says in words what it limits.

Everything is a pure function of the command and the arm's state, so that the driver and the robot object come
to the same result. Every limit only ever shortens a motion, never turns one round, and applying it twice is
the same as once. Frames: base. Units: m, rad, s.

Joint limits are kept by prediction: the Jacobian of the published geometry gives the smallest joint speeds
that make the twist. The arm resolves its seventh degree of freedom in its own way, so a joint may move
differently; hence the *measured* speed of a joint near its margin also slows the motion. The arm's own
firmware stops at the mechanical limits in any case, with a fault; this is there to avoid that fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from collectors.kinova_units import GRIPPER, JOINT_VELOCITIES, JOINTS, TOOL_POSITION
from pipeline.errors import InputError
from pipeline.gen3_kinematics import JOINT_LIMITS, jacobian

_AXES = ("x", "y", "z")
_DAMPING = 0.02  # as in gen3_kinematics.TwistSolver: bounds predicted joint speeds near singular poses
_LIMITED_JOINTS = tuple(int(i) for i in np.flatnonzero(np.isfinite(JOINT_LIMITS)))
_STILL = 1e-6  # m/s or rad/s: below this nothing is worth a word
_REPORTABLE = 0.02  # a limit is reported when it takes more than this share of the speed


@dataclass(frozen=True)
class MotionLimits:
    """What the tool may do; contradictions raise ``InputError`` when it is built.

    The box is that of the tool centre point in base. A tool that is outside may move inwards, not further
    out.
    """

    linear_speed: float = 0.25
    """Greatest speed of the tool in m/s, over all directions: the safe speed near people (ISO 10218)."""
    angular_speed: float = 1.0
    """Greatest turning speed of the tool in rad/s, over all axes."""
    gripper_speed: float = 2.0
    """Greatest speed of the gripper's target in full strokes per second."""
    box_low: tuple[float, float, float] = (0.15, -0.55, 0.02)
    """Lowest x, y, z of the tool in base, m. The default keeps the finger tips 2 cm above the arm's foot."""
    box_high: tuple[float, float, float] = (0.80, 0.55, 0.80)
    """Highest x, y, z of the tool in base, m."""
    joint_margin: float = 0.10
    """How far from the limits of joints 2, 4 and 6 the arm stays, rad."""
    slow_down_s: float = 0.2
    """The tool nears a wall or a joint its limit at no more than distance / ``slow_down_s``."""

    def __post_init__(self) -> None:
        """Rejects limits that are not numbers, not positive, or leave nothing."""
        for name in ("linear_speed", "angular_speed", "gripper_speed", "joint_margin", "slow_down_s"):
            _require_positive(name, getattr(self, name))
        for name in ("box_low", "box_high"):
            corner = getattr(self, name)
            if len(corner) != 3 or not all(_is_finite(v) for v in corner):
                raise InputError(f"kinova_gen3: {name} is {corner!r}; it must be three numbers, x y z in m")
        for axis, low, high in zip(_AXES, self.box_low, self.box_high, strict=True):
            if not low < high:
                raise InputError(f"kinova_gen3: the workspace box is empty along {axis}: {low} to {high} m")
        if self.linear_speed > 0.5:
            raise InputError(f"kinova_gen3: linear_speed is {self.linear_speed}; a Gen3 does at most 0.5 m/s")
        if self.joint_margin >= 1.0:
            raise InputError(f"kinova_gen3: joint_margin is {self.joint_margin} rad; it must be below 1")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MotionLimits:
        """Built from a table, whose corners of the box are lists. Raises ``InputError`` for unknown names."""
        table: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(**table)
        except TypeError as error:
            raise InputError(f"kinova_gen3: limits: {error}") from error


@dataclass(frozen=True)
class LimitedAction:
    """What is left of an action (7,) after the limits, and which of them are at work, in words."""

    action: np.ndarray
    limits: tuple[str, ...]


def limit_action(wanted: np.ndarray, state: np.ndarray, limits: MotionLimits) -> LimitedAction:
    """Applies all limits to an action (7,) at a state (28,) of ``kinova_units``.

    A non-finite action gives a zero twist and the gripper where it is. The gripper's target is clipped to
    0..1; its speed is limited over time, by :func:`gripper_step`.
    """
    if not np.isfinite(wanted).all():
        hold = np.zeros(7)
        hold[6] = state[GRIPPER]
        return LimitedAction(hold, ("command refused: it is not finite",))
    action = np.array(wanted, dtype=np.float64)
    action[6] = min(max(action[6], 0.0), 1.0)
    action[:6], said = limit_speed(action[:6], limits)
    action[:3], more = limit_to_box(action[:3], state[TOOL_POSITION], limits)
    said += more
    action[:6], more = limit_joints(action[:6], state[JOINTS], state[JOINT_VELOCITIES], limits)
    return LimitedAction(action, said + more)


def limit_speed(twist: np.ndarray, limits: MotionLimits) -> tuple[np.ndarray, tuple[str, ...]]:
    """The twist (6,) slowed to the speed limits, its direction kept."""
    slowed = twist.copy()
    said: tuple[str, ...] = ()
    for part, top, unit in (
        (slice(0, 3), limits.linear_speed, "m/s"),
        (slice(3, 6), limits.angular_speed, "rad/s"),
    ):
        speed = float(np.linalg.norm(twist[part]))
        if speed > top:
            slowed[part] *= top / speed
            if speed > top * (1 + _REPORTABLE):
                said += (f"speed: {speed:.2f} {unit} asked, {top:.2f} {unit} allowed",)
    return slowed, said


def limit_to_box(
    velocity: np.ndarray, position: np.ndarray, limits: MotionLimits
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The velocity (3,) less what would take a tool at ``position`` (3,) out of the box.

    Only the component towards a near wall shrinks, to distance / ``slow_down_s``; at or beyond the wall it
    is zero, and motion along the wall or inwards stays as it is.
    """
    kept = velocity.copy()
    said: tuple[str, ...] = ()
    for i, axis in enumerate(_AXES):
        for wall, outwards in ((limits.box_low[i], -1.0), (limits.box_high[i], 1.0)):
            speed = velocity[i] * outwards
            room = max((wall - position[i]) * outwards, 0.0)
            allowed = room / limits.slow_down_s
            if speed <= allowed:
                continue
            kept[i] = allowed * outwards
            if speed > max(allowed * (1 + _REPORTABLE), _STILL):
                held = room < 0.002
                said += (f"workspace: {'held at' if held else 'slowed near'} {axis} = {wall:.2f} m",)
    return kept, said


def limit_joints(
    twist: np.ndarray, joints: np.ndarray, joint_velocities: np.ndarray, limits: MotionLimits
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The whole twist (6,) slowed so that no limited joint runs into its margin, its direction kept.

    ``joints`` and ``joint_velocities`` (7,) are measured. A twist that takes the joint away from its limit
    is left alone, also for a joint that is already past its margin.
    """
    if float(np.abs(twist).max()) < _STILL:
        return twist, ()
    predicted = predicted_joint_velocities(joints, twist)
    share, slowest = 1.0, -1
    for joint in _LIMITED_JOINTS:
        outwards = abs(predicted[joint])
        if outwards <= _STILL:
            continue
        side = np.copysign(1.0, predicted[joint])
        room = max(JOINT_LIMITS[joint] - limits.joint_margin - joints[joint] * side, 0.0)
        if room < limits.joint_margin:
            outwards = max(outwards, joint_velocities[joint] * side)
        allowed = room / limits.slow_down_s
        if outwards > allowed and allowed / outwards < share:
            share, slowest = allowed / outwards, int(joint)
    if slowest < 0:
        return twist, ()
    verb = "held at" if share < 0.01 else "slowed near"
    limit = np.copysign(JOINT_LIMITS[slowest] - limits.joint_margin, joints[slowest])
    said = (f"joint {slowest + 1}: {verb} its limit, {limit:.2f} rad",) if share < 1 - _REPORTABLE else ()
    return twist * share, said


def predicted_joint_velocities(joints: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """The smallest joint velocities (7,) that make the twist (6,), damped near singular poses."""
    jac = jacobian(joints)
    gram = jac @ jac.T
    gram[np.diag_indices(6)] += _DAMPING**2
    result: np.ndarray = jac.T @ np.linalg.solve(gram, twist)
    return result


def gripper_step(current: float, target: float, elapsed_s: float, limits: MotionLimits) -> float:
    """Where the gripper's commanded position gets to within ``elapsed_s``, from ``current`` to ``target``."""
    reach = limits.gripper_speed * max(elapsed_s, 0.0)
    if abs(target - current) <= reach:
        return min(max(target, 0.0), 1.0)
    return min(max(current + np.copysign(reach, target - current).item(), 0.0), 1.0)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _require_positive(name: str, value: object) -> None:
    if not _is_finite(value) or value <= 0:  # type: ignore[operator]  # _is_finite has seen to it
        raise InputError(f"kinova_gen3: {name} is {value!r}; it must be a number above 0")
