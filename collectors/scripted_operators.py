"""Scripted people who demonstrate: a skilled operator and a sloppy one, as LeRobot teleoperators.

They see the simulator's world, as a person sees the real one; they know nothing of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig
from lerobot.teleoperators.utils import TeleopEvents
from lerobot.utils.errors import DeviceNotConnectedError

from collectors.gen3_tasks import TASKS, split_task
from collectors.scripted_motion import Aim, Manipulation, Phase
from collectors.simulated_gen3 import SimulatedGen3
from pipeline.episode import ACTION_NAMES, action_to_dict
from pipeline.errors import InputError


@dataclass(frozen=True)
class Skill:
    """How well a person operates the arm; the defaults are the skilled operator's."""

    speed: tuple[float, float] = (0.21, 0.25)
    """Slowest and fastest tool speed, m/s; drawn once per episode."""
    turn_speed: float = 1.0
    """rad/s."""
    jitter: tuple[float, float] = (0.012, 0.03)
    """Standard deviation of the hand's noise: m/s and rad/s."""
    aim_error: tuple[float, float] = (0.0025, 0.03)
    """Standard deviation of the aim at the cube: m and rad; drawn once per grasp."""
    off_centre_rate: float = 0.0
    """Share of grasps that are aimed ``off_centre`` m beside the cube's middle."""
    off_centre: tuple[float, float] = (0.024, 0.034)
    wrong_cube_rate: float = 0.0
    """Share of episodes in which the colours are mixed up."""
    pause_rate: float = 0.0
    """Probability per step of starting to hesitate."""
    pause_steps: tuple[int, int] = (3, 8)
    """Shortest and longest hesitation, control steps."""


@dataclass(frozen=True)
class SkilledSkill(Skill):
    """Fast, steady, well aimed."""


@dataclass(frozen=True)
class SloppySkill(Skill):
    """Slow and hesitating; grasps beside the cube and tries again; now and then takes the wrong one."""

    speed: tuple[float, float] = (0.08, 0.13)
    turn_speed: float = 0.6
    jitter: tuple[float, float] = (0.03, 0.10)
    aim_error: tuple[float, float] = (0.006, 0.10)
    off_centre_rate: float = 0.35
    wrong_cube_rate: float = 0.12
    pause_rate: float = 0.05


@TeleoperatorConfig.register_subclass("scripted_operator")
@dataclass(kw_only=True)
class ScriptedOperatorConfig(TeleoperatorConfig):
    """A scripted person has no device, so nothing to configure; skill is given to the constructor."""


class ScriptedPerson(Teleoperator):
    """What scripted people have in common: a robot to look at and an action to give.

    A person is "connected" while the robot they look at is.
    """

    config_class = ScriptedOperatorConfig
    name = "scripted_operator"

    def __init__(self, robot: SimulatedGen3, rng: np.random.Generator) -> None:
        """Looks at ``robot``; all that is random about the person comes from ``rng``."""
        super().__init__(ScriptedOperatorConfig())
        self.robot = robot
        self.rng = rng
        self.task = TASKS[0]

    @property
    def action_features(self) -> dict[str, Any]:
        """``float`` for each of ``ACTION_NAMES``."""
        return dict.fromkeys(ACTION_NAMES, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        """None: a scripted person feels nothing."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Whether the robot is connected."""
        return self.robot.is_connected

    @property
    def is_calibrated(self) -> bool:
        """Always true."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Checks that the robot is connected; raises ``DeviceNotConnectedError`` otherwise."""
        if not self.robot.is_connected:
            raise DeviceNotConnectedError(f"{self.robot} is not connected; connect it first")

    def calibrate(self) -> None:
        """Does nothing."""

    def configure(self) -> None:
        """Does nothing."""

    def send_feedback(self, feedback: Mapping[str, Any]) -> None:
        """Does nothing."""

    def disconnect(self) -> None:
        """Does nothing: the robot belongs to whoever connected it."""


class DoneWatch:
    """Notices that something has been true for some control steps on end."""

    def __init__(self, steps: int) -> None:
        """``steps`` is how long it must have been true."""
        self.steps = steps
        self._since: int | None = None

    def update(self, true_now: bool, step: int) -> bool:
        """Tells whether it has been true up to control step ``step`` for long enough."""
        if not true_now:
            self._since = None
        elif self._since is None:
            self._since = step
        return self._since is not None and step - self._since >= self.steps


class ScriptedOperator(ScriptedPerson):
    """A person who demonstrates tasks with a given skill.

    Per episode: ``robot.prepare(task, seed)``, ``begin(task)``, then for each control step
    ``get_teleop_events()`` and, unless it says to end, ``get_action()``.
    """

    def __init__(self, robot: SimulatedGen3, skill: Skill, rng: np.random.Generator) -> None:
        """A person of ``skill`` looking at ``robot``."""
        super().__init__(robot, rng)
        self.skill = skill
        self.believed_task = self.task
        self._manipulation: Manipulation | None = None
        self._done = DoneWatch(steps=2)
        self._pause = 0
        self._speed = skill.speed[1]
        self._failed_grasps = 0

    def begin(self, task: str) -> None:
        """Gets ready for an episode of ``task``; raises ``InputError`` for an unknown one."""
        split_task(task)
        self.task = task
        mixed_up = self.rng.random() < self.skill.wrong_cube_rate
        self.believed_task = _swap_colors(task) if mixed_up else task
        self._speed = float(self.rng.uniform(*self.skill.speed))
        self._pause = 0
        self._failed_grasps = 0
        self._done = DoneWatch(steps=2)
        self._manipulation = Manipulation(self.robot.world, self.believed_task, self._new_aim())

    def get_action(self) -> dict[str, float]:
        """This control step's action. Raises ``InputError`` before ``begin``."""
        if self._manipulation is None:
            raise InputError("call begin(task) before get_action()")
        action = self._manipulation.action()
        if self._manipulation.failed_grasps > self._failed_grasps:
            self._failed_grasps = self._manipulation.failed_grasps
            self._manipulation.aim = self._new_aim()
        if self._hesitates():
            action[:6] = 0.0
        action[:3] += self.rng.normal(0.0, self.skill.jitter[0], 3)
        action[3:6] += self.rng.normal(0.0, self.skill.jitter[1], 3)
        return action_to_dict(action)

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Ends the episode, marked a success, a few steps after the person believes to be done."""
        done = self._done.update(self.robot.world.task_succeeded(self.believed_task), self.robot.world.steps)
        return {
            TeleopEvents.IS_INTERVENTION: False,
            TeleopEvents.TERMINATE_EPISODE: done,
            TeleopEvents.SUCCESS: done,
            TeleopEvents.FAILURE: False,
        }

    def _new_aim(self) -> Aim:
        skill = self.skill
        offset = self.rng.normal(0.0, skill.aim_error[0], 2)
        if self.rng.random() < skill.off_centre_rate:
            beside = self.rng.uniform(*skill.off_centre) * self.rng.choice([-1.0, 1.0])
            offset[int(self.rng.integers(2))] = beside
        yaw = float(self.rng.normal(0.0, skill.aim_error[1]))
        return Aim((float(offset[0]), float(offset[1])), yaw, self._speed, skill.turn_speed)

    def _hesitates(self) -> bool:
        if self._pause == 0 and self.rng.random() < self.skill.pause_rate:
            self._pause = int(self.rng.integers(self.skill.pause_steps[0], self.skill.pause_steps[1] + 1))
        if self._pause == 0 or self._manipulation is None or self._manipulation.phase is Phase.GRASP:
            return False
        self._pause -= 1
        return True


def _swap_colors(task: str) -> str:
    return " ".join({"red": "blue", "blue": "red"}.get(word, word) for word in task.split())
