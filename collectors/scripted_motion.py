"""How a scripted person moves the arm: a servo towards a cube, a grasp, a lift, a stack.

The motion is a smooth function of where things are (proportional with speed limits, descending as
the alignment gets better), as a person's hand-eye servoing is and as a policy that sees only camera
images can imitate. Units m, rad, s; frame base.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from collectors.gen3_scene import CUBE_COLORS, CUBE_SIZE
from collectors.gen3_tasks import LIFT_HEIGHT, split_task

if TYPE_CHECKING:
    from collectors.gen3_world import World

QUARTER = np.pi / 2
GRASP_HEIGHT = CUBE_SIZE / 2  # the tool centre's height in a grasp on the table, m


@dataclass(frozen=True)
class Aim:
    """Where a person thinks the cube is, off its true pose, and how fast they dare to move."""

    offset: tuple[float, float] = (0.0, 0.0)  # m, along the gripper's x and y
    yaw: float = 0.0  # rad
    speed: float = 0.25  # m/s
    turn_speed: float = 1.0  # rad/s


class Phase(StrEnum):
    """What the person is doing."""

    CLEAR = "clear"  # let go of what should not be held
    REACH = "reach"
    GRASP = "grasp"
    LIFT = "lift"
    CARRY = "carry"
    RELEASE = "release"
    RETREAT = "retreat"


def wrap_quarter(angle: float) -> float:
    """The angle plus the quarter turns that bring it nearest to zero: within ± π/4 rad."""
    return float((angle + QUARTER / 2) % QUARTER - QUARTER / 2)


def _capped(vector: np.ndarray, limit: float) -> np.ndarray:
    size = float(np.linalg.norm(vector))
    return vector if size <= limit else vector * (limit / size)


class Manipulation:
    """One person doing one task with one aim; :meth:`action` is called once per control step."""

    def __init__(self, world: World, task: str, aim: Aim) -> None:
        """Starts from whatever the scene is now: an open hand, or one that holds something."""
        self.world = world
        self.cube, self.support = split_task(task)
        self.aim = aim
        self.failed_grasps = 0
        self._since = 0
        self.phase = Phase.REACH
        if world.holding(self.cube):
            self._enter(Phase.LIFT)
        elif world.gripper_position > 0.1:
            self._enter(Phase.CLEAR)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._since = 0

    def action(self) -> np.ndarray:
        """The next action (7,): tool twist and gripper target."""
        self._advance_phase()
        self._since += 1
        steps = {
            Phase.CLEAR: self._clear,
            Phase.REACH: self._reach,
            Phase.GRASP: self._grasp,
            Phase.LIFT: self._lift,
            Phase.CARRY: self._carry,
            Phase.RELEASE: self._release,
            Phase.RETREAT: self._retreat,
        }
        return steps[self.phase]()

    def _advance_phase(self) -> None:
        """Moves to the next phase when this one's goal is met, or back when it was not."""
        world = self.world
        if self.phase is Phase.CLEAR and world.gripper_position < 0.08:
            self._enter(Phase.REACH)
        elif self.phase is Phase.REACH and self._aligned():
            self._enter(Phase.GRASP)
        elif self.phase is Phase.GRASP and self._since >= 3:
            if world.holding(self.cube):
                self._enter(Phase.LIFT)
            elif self._since >= 6:
                self._fail()
        elif self.phase is Phase.LIFT and self._since >= 2 and not world.holding(self.cube):
            self._fail()
        elif self.phase is Phase.LIFT and self.support is not None and self._height() > CUBE_SIZE * 0.9:
            self._enter(Phase.CARRY)
        elif self.phase is Phase.CARRY:
            if not world.holding(self.cube):
                self._fail()
            elif self._over_support():
                self._enter(Phase.RELEASE)
        elif self.phase is Phase.RELEASE and world.gripper_position < 0.25:
            self._enter(Phase.RETREAT)
        elif self.phase is Phase.RETREAT and self._since > 15 and self.support is not None:
            self._enter(Phase.REACH)  # it fell off: again

    def _fail(self) -> None:
        self.failed_grasps += 1
        self._enter(Phase.CLEAR)

    # Where things are, relative to the tool.

    def _height(self) -> float:
        """How far the cube is above where it rests on the table."""
        return float(self.world.cube_position(self.cube)[2] - CUBE_SIZE / 2)

    def _believed_target(self) -> tuple[np.ndarray, float]:
        """Vector (2,) from the tool to where the person aims, and the turn (rad) to get aligned."""
        rotation = self.world.tool_rotation
        yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
        turn = wrap_quarter(self.world.cube_yaw(self.cube) + self.aim.yaw - yaw)
        across = self.world.cube_position(self.cube)[:2] - self.world.tool_position[:2]
        return across + rotation[:2, :2] @ np.array(self.aim.offset), turn

    def _aligned(self) -> bool:
        across, turn = self._believed_target()
        low = self.world.tool_position[2] < GRASP_HEIGHT + 0.012
        return bool(low and np.hypot(*across) < 0.009 and abs(turn) < 0.12)

    def _support_offset(self) -> np.ndarray:
        """From the held cube's centre to where it should be: on top of the support."""
        assert self.support is not None
        goal = self.world.cube_position(self.support) + np.array([0.0, 0.0, CUBE_SIZE + 0.002])
        return goal - self.world.cube_position(self.cube)

    def _over_support(self) -> bool:
        offset = self._support_offset()
        return bool(np.hypot(offset[0], offset[1]) < 0.008 and abs(offset[2]) < 0.006)

    # One servo law per phase.

    def _twist(self, velocity: np.ndarray, turn: float, gripper: float) -> np.ndarray:
        """The action with the tool kept upright: the tilt is servoed to zero all the time."""
        tool_axis = self.world.tool_rotation[:, 2]
        tilt = np.cross(tool_axis, [0.0, 0.0, -1.0])
        spin = np.clip(3.0 * turn, -self.aim.turn_speed, self.aim.turn_speed)
        return np.array([*velocity, 2.0 * tilt[0], 2.0 * tilt[1], spin, gripper])

    def _reach(self) -> np.ndarray:
        across, turn = self._believed_target()
        # A funnel: the further off, the higher; wide of the cube the fingers pass above it.
        clearance = np.clip(2.5 * (np.hypot(*across) - 0.008), 0, 0.10) + np.clip(
            0.15 * (abs(turn) - 0.12), 0, 0.05
        )
        rise = GRASP_HEIGHT + clearance - self.world.tool_position[2]
        velocity = np.array([*_capped(4.0 * across, self.aim.speed), 0.0])
        velocity[2] = np.clip(4.0 * rise, -self.aim.speed, self.aim.speed)
        return self._twist(velocity, turn, 0.0)

    def _grasp(self) -> np.ndarray:
        return self._twist(np.zeros(3), 0.0, 1.0)

    def _lift(self) -> np.ndarray:
        goal = LIFT_HEIGHT + 0.04 - self._height()
        return self._twist(np.array([0, 0, np.clip(4.0 * goal, -0.1, self.aim.speed)]), 0.0, 1.0)

    def _carry(self) -> np.ndarray:
        assert self.support is not None
        offset = self._support_offset()
        away = np.hypot(offset[0], offset[1])
        rise = offset[2] + np.clip(2.0 * (away - 0.006), 0, 0.04)
        # Too low to pass over the support: rise first.
        pace = float(np.clip(1.0 - (rise - 0.015) / 0.02, 0.0, 1.0))
        velocity = np.array([*(_capped(4.0 * offset[:2], self.aim.speed) * pace), 0.0])
        velocity[2] = np.clip(4.0 * rise, -0.5 * self.aim.speed, self.aim.speed)
        turn = wrap_quarter(self.world.cube_yaw(self.support) - self.world.cube_yaw(self.cube))
        return self._twist(velocity, turn if away > 0.02 else 0.0, 1.0)

    def _release(self) -> np.ndarray:
        return self._twist(np.zeros(3), 0.0, 0.0)

    def _retreat(self) -> np.ndarray:
        goal = 0.16 - self.world.tool_position[2]
        return self._twist(np.array([0, 0, np.clip(4.0 * goal, 0, 0.15)]), 0.0, 0.0)

    def _clear(self) -> np.ndarray:
        """Sets down whatever is held, then opens the hand."""
        held = [color for color in CUBE_COLORS if self.world.holding(color)]
        drop = self.world.cube_position(held[0])[2] - CUBE_SIZE / 2 if held else 0.0
        if drop > 0.01 and self._since < 20:
            return self._twist(np.array([0, 0, -min(4.0 * drop, self.aim.speed)]), 0.0, 1.0)
        return self._twist(np.zeros(3), 0.0, 0.0)
