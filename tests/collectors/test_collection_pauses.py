"""Motion input from a pause of a rollout does not count when it goes on; new input does."""

from __future__ import annotations

from typing import Any

from lerobot.teleoperators.utils import TeleopEvents

from collectors.collection_loop import LoopConfig, run_episode
from collectors.operator_keys import OperatorKey
from pipeline.episode import ACTION_NAMES, Frame, Source
from tests.collectors.moving_arm import MovingArm
from tests.collectors.test_collection_rollout import Ascending

RATE_HZ = 100.0


class Frames:
    """Remembers who drove."""

    def __init__(self) -> None:
        """Nobody yet."""
        self.sources: list[Source] = []

    def append(self, frame: Frame) -> None:
        """One more."""
        self.sources.append(frame.source)


class Played:
    """A device that is played back, one entry of ``(driving, moving)`` a step; then nobody touches it."""

    def __init__(self, steps: list[tuple[bool, bool]], keys: dict[int, OperatorKey]) -> None:
        """``keys`` are pressed at the steps that they are named for."""
        self.steps, self.keys, self.step = steps, keys, -1

    def take_keys(self) -> list[OperatorKey]:
        """The key of the step that begins."""
        self.step += 1
        return [self.keys[self.step]] if self.step in self.keys else []

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Whether the device says that somebody drives."""
        return {TeleopEvents.IS_INTERVENTION: self._now[0]}

    def get_action(self) -> dict[str, Any]:
        """Upwards where it is moved."""
        return dict.fromkeys(ACTION_NAMES, 0.0) | {"tool.vz": 0.05 * self._now[1]}

    @property
    def _now(self) -> tuple[bool, bool]:
        return self.steps[self.step] if self.step < len(self.steps) else (False, False)


class AlwaysUp:
    """A policy that has an action at once."""

    def act(self, observation: dict[str, Any]) -> Any:
        """Upwards."""
        return Ascending().plan(observation)[0]


def test_input_of_a_pause_does_not_drive_when_it_goes_on() -> None:
    held, released, idle = (True, True), (True, False), (False, False)
    steps = [idle] * 3 + [held] * 5 + [held, released, released] + [held] * 2 + [idle]
    operator = Played(steps, {3: OperatorKey.PAUSE, 8: OperatorKey.START, 15: OperatorKey.SUCCESS})
    frames = Frames()
    run_episode(MovingArm(), operator, LoopConfig(RATE_HZ, 50), policy=AlwaysUp(), recorder=frames)
    before, left_over = [Source.POLICY] * 3, [Source.POLICY] * 3
    assert frames.sources[:8] == [*before, *left_over, Source.INTERVENTION, Source.INTERVENTION]
    assert set(frames.sources[8:]) == {Source.POLICY}
