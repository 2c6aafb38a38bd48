"""A scripted person who drops what they lift: mistakes at known frames, to test what judges episodes.

The cube is let go of in the lift, once an episode at most. Then the person picks it up again, or gives
up: backs off, waits, and ends the episode as failed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from lerobot.teleoperators.utils import TeleopEvents

from collectors.gen3_scene import CUBE_SIZE
from collectors.gen3_tasks import split_task
from collectors.scripted_motion import Phase
from collectors.scripted_operators import ScriptedOperator, Skill
from collectors.simulated_gen3 import SimulatedGen3
from pipeline.episode import action_to_dict

_OPENING_STEPS = 6  # at most: the fingers let go of a cube within four steps
_BACKED_OFF = np.array([0.28, 0.0, 0.36])  # where who gives up takes the tool, m in base: out of the way


@dataclass(frozen=True)
class ClumsySkill(Skill):
    """Neither quick nor slow, aims fairly well, and drops most of what is lifted."""

    speed: tuple[float, float] = (0.10, 0.22)
    jitter: tuple[float, float] = (0.02, 0.06)
    aim_error: tuple[float, float] = (0.004, 0.06)
    drop_rate: float = 0.75
    """Share of episodes in which the cube is dropped in the lift."""
    drop_height: tuple[float, float] = (0.015, 0.055)
    """Lowest and highest height above the table at which it is let go of, m; drawn once per episode."""
    give_up_rate: float = 0.5
    """Share of drops after which the person gives up."""
    give_up_steps: tuple[int, int] = (20, 60)
    """Shortest and longest time from the drop until who gave up ends the episode, control steps."""


@dataclass(frozen=True)
class Drop:
    """One dropped cube, in frames of its episode.

    ``let_go``: the frame whose action opens the gripper. ``lost``: the first frame that shows the cube out
    of the hand, some frames later. ``height``: how high it was held, m. ``gave_up``: nobody picked it up.
    """

    let_go: int
    lost: int
    height: float
    gave_up: bool

    def as_json(self) -> dict[str, float | bool]:
        """The fields by name."""
        return asdict(self)


class ClumsyOperator(ScriptedOperator):
    """A person of :class:`ClumsySkill`; ``drop`` tells of the latest episode's dropped cube."""

    def __init__(self, robot: SimulatedGen3, skill: ClumsySkill, rng: np.random.Generator) -> None:
        """A clumsy person looking at ``robot``."""
        super().__init__(robot, skill, rng)
        self.clumsiness = skill
        self.drop: Drop | None = None
        self._let_go: int | None = None
        self._held_at = 0.0
        self._plan_drop()

    def begin(self, task: str) -> None:
        """Gets ready for an episode of ``task``; raises ``InputError`` for an unknown one."""
        super().begin(task)
        self._plan_drop()

    def get_action(self) -> dict[str, float]:
        """This control step's action. Raises ``InputError`` before ``begin``."""
        world = self.robot.world
        cube, _ = split_task(self.believed_task)
        if self._let_go is not None and self.drop is None:
            if not world.holding(cube) or world.steps - self._let_go >= _OPENING_STEPS:
                self.drop = Drop(self._let_go, world.steps, self._held_at, self._gives_up)
            else:
                return self._open_hand(np.zeros(3))
        if self.drop is not None and self.drop.gave_up:
            way = 2.0 * (_BACKED_OFF - world.tool_position)
            return self._open_hand(way * min(1.0, self._speed / max(float(np.linalg.norm(way)), 1e-6)))
        action = super().get_action()
        height = float(world.cube_position(cube)[2] - CUBE_SIZE / 2)
        lifting = self._manipulation is not None and self._manipulation.phase is Phase.LIFT
        if self.drop is None and lifting and height >= self._drop_at and world.holding(cube):
            self._let_go, self._held_at = world.steps, height
            return self._open_hand(np.zeros(3))
        return action

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """As any person's; who gave up ends the episode as failed some time later."""
        events = super().get_teleop_events()
        if self.drop is None or not self.drop.gave_up:
            return events
        over = self.robot.world.steps - self.drop.lost >= self._patience
        return events | {TeleopEvents.TERMINATE_EPISODE: over, TeleopEvents.FAILURE: over}

    def _plan_drop(self) -> None:
        """Draws whether, how high and with what end; the number of draws is the same in every case."""
        skill = self.clumsiness
        drops = self.rng.random() < skill.drop_rate
        height = float(self.rng.uniform(*skill.drop_height))
        self._drop_at = height if drops else np.inf
        self._gives_up = bool(self.rng.random() < skill.give_up_rate)
        self._patience = int(self.rng.integers(skill.give_up_steps[0], skill.give_up_steps[1] + 1))
        self._let_go, self._held_at, self.drop = None, 0.0, None

    def _open_hand(self, velocity: np.ndarray) -> dict[str, float]:
        """Opens the gripper while the tool moves with ``velocity`` (3,) m/s, with the hand's noise."""
        action = np.array([*velocity, 0.0, 0.0, 0.0, 0.0])
        action[:3] += self.rng.normal(0.0, self.skill.jitter[0], 3)
        action[3:6] += self.rng.normal(0.0, self.skill.jitter[1], 3)
        return action_to_dict(action)
