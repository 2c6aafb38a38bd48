"""Scripted people who watch: a supervisor who corrects rollouts, and an annotator who judges episodes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from lerobot.teleoperators.utils import TeleopEvents

from collectors.gen3_scene import CUBE_COLORS, CUBE_SIZE
from collectors.gen3_tasks import LIFT_HEIGHT, split_task
from collectors.scripted_motion import Aim, Manipulation
from collectors.scripted_operators import DoneWatch, ScriptedPerson, SkilledSkill
from collectors.simulated_gen3 import SimulatedGen3
from pipeline.episode import Outcome, action_to_dict
from pipeline.errors import InputError

if TYPE_CHECKING:
    from collectors.gen3_world import World


class Trouble(StrEnum):
    """Why a supervisor takes over."""

    WRONG_CUBE = "goes for the wrong cube"
    STUCK = "makes no progress"
    PUSHED_AWAY = "pushed the cube away"
    CLOSED_ON_AIR = "closed the gripper on air"
    DROPPED = "dropped the cube"


@dataclass(frozen=True)
class SupervisorConfig:
    """When a supervisor takes over and hands back."""

    intervene: bool = True
    """False: only watches and ends the episode, as for an autonomous evaluation."""
    patience_steps: int = 15
    """Control steps without progress before taking over."""
    progress: float = 0.01
    """What counts as progress, m nearer to the goal."""
    pushed: float = 0.03
    """How far a cube that nobody holds may slide, m."""
    hand_back_rate: float = 0.3
    """Share of the first take-overs after which the policy gets the arm back once it is on track."""
    patience_after_steps: int = 10
    """After handing back, control steps without judging anything but a wrong cube."""


class ScriptedSupervisor(ScriptedPerson):
    """A person who watches a rollout, takes over when it goes wrong, and ends it when it is decided.

    Per episode: ``robot.prepare``, ``begin(task)``, then for each control step ``get_teleop_events()``
    once; while it says ``IS_INTERVENTION``, ``get_action()`` is what drives the arm.
    """

    name = "scripted_supervisor"

    def __init__(
        self,
        robot: SimulatedGen3,
        rng: np.random.Generator,
        config: SupervisorConfig | None = None,
    ) -> None:
        """Watches ``robot``; ``rng`` gives the hand's noise and when to hand back."""
        super().__init__(robot, rng)
        self.config = config or SupervisorConfig()
        self.trouble: Trouble | None = None  # the latest reason to take over
        self.takeovers = 0
        self._skill = SkilledSkill()
        self._manipulation: Manipulation | None = None
        self._hand_back = False
        self.begin_watch()

    def begin_watch(self) -> None:
        """Forgets the last episode."""
        self.trouble = None
        self.takeovers = 0
        self._manipulation = None
        self._hand_back = False
        self._done = DoneWatch(steps=2)
        self._hopeless = DoneWatch(steps=4)
        self._wrong = DoneWatch(steps=2)
        self._lifted = False
        self._best = np.inf
        self._best_step = 0
        self._quiet_until = 0
        self._rest: dict[str, np.ndarray] = {}

    def begin(self, task: str) -> None:
        """Gets ready to watch an episode of ``task``; raises ``InputError`` for an unknown one."""
        split_task(task)
        self.task = task
        self.begin_watch()
        self._remember_rest()

    @property
    def driving(self) -> bool:
        """Whether the person has the arm."""
        return self._manipulation is not None

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Looks once, decides who drives, and tells whether the episode is over."""
        if not self._rest:
            raise InputError("call begin(task) before get_teleop_events()")
        world = self.robot.world
        done = self._done.update(world.task_succeeded(self.task), world.steps)
        hopeless = self._hopeless.update(self._beyond_repair(world), world.steps)
        if not (done or hopeless) and self.config.intervene:
            self._decide_who_drives(world)
        return {
            TeleopEvents.IS_INTERVENTION: self.driving,
            TeleopEvents.TERMINATE_EPISODE: done or hopeless,
            TeleopEvents.SUCCESS: done,
            TeleopEvents.FAILURE: hopeless and not done,
        }

    def get_action(self) -> dict[str, float]:
        """The correction for this control step; raises ``InputError`` unless the person drives."""
        if self._manipulation is None:
            raise InputError("the supervisor is not driving; ask get_teleop_events() first")
        action = self._manipulation.action()
        action[:3] += self.rng.normal(0.0, self._skill.jitter[0], 3)
        action[3:6] += self.rng.normal(0.0, self._skill.jitter[1], 3)
        return action_to_dict(action)

    def _decide_who_drives(self, world: World) -> None:
        cube, _ = split_task(self.task)
        if self._manipulation is None:
            self.trouble = self._find_trouble(world)
            if self.trouble is not None:
                self.takeovers += 1
                self._hand_back = self.takeovers == 1 and self.rng.random() < self.config.hand_back_rate
                speed = float(self.rng.uniform(*self._skill.speed))
                self._manipulation = Manipulation(world, self.task, Aim(speed=speed))
        elif self._hand_back and world.holding(cube) and _height(world, cube) > 0.02:
            self._manipulation = None
            self._quiet_until = world.steps + self.config.patience_after_steps
            self._remember_rest()

    def _remember_rest(self) -> None:
        world = self.robot.world
        self._rest = {color: world.cube_position(color) for color in CUBE_COLORS}
        self._best, self._best_step = np.inf, world.steps
        self._lifted = False

    def _find_trouble(self, world: World) -> Trouble | None:
        cube, support = split_task(self.task)
        other = next(color for color in CUBE_COLORS if color != cube)
        holding = world.holding(cube)
        placed = _placed(world, cube, support)
        astray = not holding and not placed and _goes_for(world, other, cube)
        if self._wrong.update(astray, world.steps):
            return Trouble.WRONG_CUBE
        self._lifted = self._lifted or (holding and _height(world, cube) > 0.02)
        remaining = _remaining(world, cube, support)
        if remaining < self._best - self.config.progress:
            self._best, self._best_step = remaining, world.steps
        if world.steps < self._quiet_until or placed:
            return None
        slid = np.linalg.norm((world.cube_position(cube) - self._rest[cube])[:2])
        closed = world.gripper_position
        grasped_air = closed > 0.75 or (closed > 0.3 and world.tool_position[2] > 0.09)
        signs = (
            (Trouble.DROPPED, self._lifted and not holding),
            (Trouble.PUSHED_AWAY, not self._lifted and not holding and slid > self.config.pushed),
            (Trouble.CLOSED_ON_AIR, not holding and grasped_air),
            (Trouble.STUCK, world.steps - self._best_step >= self.config.patience_steps),
        )
        return next((trouble for trouble, seen in signs if seen), None)

    def _beyond_repair(self, world: World) -> bool:
        """Whether nobody present will fix it: a cube fell off, or the wrong one is up and no one acts."""
        cube, _ = split_task(self.task)
        if any(world.cube_position(color)[2] < -0.02 for color in CUBE_COLORS):
            return True
        other = next(color for color in CUBE_COLORS if color != cube)
        wrong_is_up = world.holding(other) and _height(world, other) > LIFT_HEIGHT
        return wrong_is_up and not self.config.intervene


class ScriptedAnnotator:
    """A person who looks at how an episode ended and says whether the task is done."""

    def __init__(self, robot: SimulatedGen3, name: str = "scripted-annotator") -> None:
        """``name`` is what the label store records as the annotator."""
        self.robot = robot
        self.name = name

    def judge(self) -> Outcome:
        """The outcome of the episode that just ended, from the scene as it is now."""
        return Outcome.SUCCESS if self.robot.task_succeeded() else Outcome.FAILURE


def _height(world: World, cube: str) -> float:
    """How far a cube is above where it rests on the table, m."""
    return float(world.cube_position(cube)[2] - CUBE_SIZE / 2)


def _goes_for(world: World, other: str, cube: str) -> bool:
    """Whether the tool is down at the other cube rather than at the right one."""
    if world.holding(other):
        return True
    tool = world.tool_position
    to_other = np.hypot(*(world.cube_position(other) - tool)[:2])
    to_cube = np.hypot(*(world.cube_position(cube) - tool)[:2])
    return bool(to_other < 0.045 and to_other < to_cube and tool[2] < 0.10)


def _remaining(world: World, cube: str, support: str | None) -> float:
    """How far the task is from done, m: the way to the cube, then of the cube to its goal."""
    position = world.cube_position(cube)
    if not world.holding(cube):
        way = 1.0 + float(np.linalg.norm(position - world.tool_position))
        # Nothing to measure while the fingers close: count their travel as progress.
        return way - 0.1 * world.gripper_position
    if support is None:
        return max(0.0, LIFT_HEIGHT - _height(world, cube))
    goal = world.cube_position(support) + np.array([0.0, 0.0, CUBE_SIZE])
    offset = goal - position
    # Over the support counts as near however high: a cube is lifted before it is set down.
    return float(np.hypot(offset[0], offset[1])) + 0.3 * abs(float(offset[2]))


def _placed(world: World, cube: str, support: str | None) -> bool:
    """Whether the cube lies on its support, let go of or about to be."""
    if support is None:
        return False
    offset = world.cube_position(cube) - world.cube_position(support)
    return bool(np.hypot(offset[0], offset[1]) < CUBE_SIZE / 2 and abs(offset[2] - CUBE_SIZE) < 0.008)
