"""How the simulated Gen3 moves: commands in, joint angles out, in real time. Units m, rad, s.

Joints follow what is asked of them within an acceleration limit; nothing has weight, nothing is in the
way. The tool is the project's (``pipeline.gen3_kinematics``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.gen3_kinematics import JOINT_LIMITS, READY, TwistSolver, tool_pose

STEP_S = 0.005
_COMMAND_PERIOD_S = 0.025  # the arm serves high-level commands at 40 Hz
_ACCELERATION = 10.0  # rad/s², of every joint
_GRIPPER_SPEED = 1.8  # full strokes per second, as the simulated arm of the collectors
_GOAL_GAIN = 3.0  # 1/s
_GOAL_JOINT_SPEED = 0.6  # rad/s
_GOAL_TWIST = np.array([0.2] * 3 + [0.8] * 3)  # m/s, rad/s
_GOAL_REACHED = 1e-3  # rad, m

Frame = Literal["base", "tool", "mixed"]


@dataclass(frozen=True)
class Command:
    """What the arm is asked to do until told otherwise; exactly one of the four, or none: stand still.

    ``twist`` (6,) in m/s and rad/s in ``frame``; ``joint_speeds`` (7,) in rad/s; ``joint_goal`` (7,) in
    rad; ``pose_goal`` (4, 4) in base.
    """

    twist: np.ndarray | None = None
    frame: Frame = "base"
    joint_speeds: np.ndarray | None = None
    joint_goal: np.ndarray | None = None
    pose_goal: np.ndarray | None = None

    @property
    def is_action(self) -> bool:
        """Whether it ends by itself."""
        return self.joint_goal is not None or self.pose_goal is not None


STAND_STILL = Command()


class ArmMotion:
    """The moving arm. Not thread-safe."""

    def __init__(self, joints: np.ndarray = READY) -> None:
        """Stands at ``joints`` (7,) in rad, gripper open."""
        self.joints: np.ndarray = np.array(joints, dtype=float)
        self.velocities: np.ndarray = np.zeros(7)
        self.gripper = 0.0  # 0 open to 1 closed
        self.gripper_speed = 0.0  # of the fingers now, strokes per second, positive closes
        self.in_force = STAND_STILL
        self._pending: Command | None = None
        self._gripper_target: float | None = None  # none: ``_gripper_command`` is a speed
        self._gripper_command = 0.0
        self._since_command = 0.0
        self._solver = TwistSolver()

    def command(self, command: Command) -> None:
        """Takes effect at the arm's next command period."""
        self._pending = command

    def stop(self) -> None:
        """Takes effect at once, for the gripper too."""
        self._pending, self.in_force = None, STAND_STILL
        self._gripper_target, self._gripper_command = None, 0.0

    def move_gripper(self, *, target: float | None = None, speed: float = 0.0) -> None:
        """Towards ``target`` (0 open to 1 closed), or with ``speed`` (strokes/s, positive closes)."""
        self._gripper_target = None if target is None else float(np.clip(target, 0.0, 1.0))
        self._gripper_command = float(np.clip(speed, -_GRIPPER_SPEED, _GRIPPER_SPEED))

    def twist_in_base(self) -> np.ndarray:
        """The commanded twist (6,) in force, in base; zeros when none is."""
        twist = self.in_force.twist
        if twist is None:
            return np.zeros(6)
        if self.in_force.frame == "base":
            return twist.copy()
        rotation = tool_pose(self.joints)[:3, :3]
        linear = twist[:3] if self.in_force.frame == "mixed" else rotation @ twist[:3]
        return np.concatenate([linear, rotation @ twist[3:]])

    def step(self) -> bool:
        """Advances by ``STEP_S``; whether an action has just reached its goal."""
        self._since_command += STEP_S
        if self._pending is not None and self._since_command >= _COMMAND_PERIOD_S - 1e-9:
            self.in_force, self._pending = self._pending, None
            self._since_command = 0.0
        wanted = self._wanted_velocities()
        change = np.clip(wanted - self.velocities, -_ACCELERATION * STEP_S, _ACCELERATION * STEP_S)
        self.velocities = self.velocities + change
        moved = self.joints + self.velocities * STEP_S
        self.joints = np.clip(moved, -JOINT_LIMITS, JOINT_LIMITS)
        self.velocities[self.joints != moved] = 0.0
        self._step_gripper()
        if self.in_force.is_action and self._goal_distance() < _GOAL_REACHED:
            self.in_force = STAND_STILL
            return True
        return False

    @property
    def has_action(self) -> bool:
        """Whether an action is under way or about to be."""
        return self.in_force.is_action or (self._pending is not None and self._pending.is_action)

    @property
    def is_resting(self) -> bool:
        """Whether a step would change nothing."""
        return (
            self.in_force is STAND_STILL
            and self._pending is None
            and not self.velocities.any()
            and self._gripper_velocity() == 0.0
        )

    def _wanted_velocities(self) -> np.ndarray:
        command = self.in_force
        if command.joint_speeds is not None:
            return command.joint_speeds
        if command.joint_goal is not None:
            error = command.joint_goal - self.joints
            return np.clip(_GOAL_GAIN * error, -_GOAL_JOINT_SPEED, _GOAL_JOINT_SPEED)
        if command.pose_goal is not None:
            twist = np.clip(_GOAL_GAIN * self._pose_error(command.pose_goal), -_GOAL_TWIST, _GOAL_TWIST)
            return self._solver.velocities(self.joints, twist, STEP_S)
        if command.twist is not None:
            return self._solver.velocities(self.joints, self.twist_in_base(), STEP_S)
        return np.zeros(7)

    def _pose_error(self, goal: np.ndarray) -> np.ndarray:
        here = tool_pose(self.joints)
        turn = goal[:3, :3] @ here[:3, :3].T
        axis = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
        sine, cosine = float(np.linalg.norm(axis)), (float(np.trace(turn)) - 1) / 2
        angle = np.arctan2(sine, cosine)
        return np.concatenate([goal[:3, 3] - here[:3, 3], axis * (angle / sine if sine > 1e-9 else 1.0)])

    def _goal_distance(self) -> float:
        if self.in_force.joint_goal is not None:
            return float(np.abs(self.in_force.joint_goal - self.joints).max())
        assert self.in_force.pose_goal is not None
        return float(np.abs(self._pose_error(self.in_force.pose_goal)).max())

    def _gripper_velocity(self) -> float:
        if self._gripper_target is not None:
            gap = self._gripper_target - self.gripper
            return float(np.clip(gap / STEP_S, -_GRIPPER_SPEED, _GRIPPER_SPEED))
        blocked = self.gripper >= 1.0 if self._gripper_command > 0 else self.gripper <= 0.0
        return 0.0 if blocked else self._gripper_command

    def _step_gripper(self) -> None:
        self.gripper_speed = self._gripper_velocity()
        self.gripper = float(np.clip(self.gripper + self.gripper_speed * STEP_S, 0.0, 1.0))


def nearest_turn(angles: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The same joint angles (7,) in rad, by whole turns as near to ``reference`` as limits allow."""
    turned = angles + 2 * np.pi * np.round((reference - angles) / (2 * np.pi))
    wrapped = np.mod(angles + np.pi, 2 * np.pi) - np.pi
    return np.where(np.isfinite(JOINT_LIMITS), wrapped, turned)
