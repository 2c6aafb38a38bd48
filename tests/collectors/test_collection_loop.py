"""Who drives, what is recorded and when the loop ends, on a robot small enough to check by hand."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from lerobot.teleoperators.utils import TeleopEvents

from collectors.collection_loop import LoopConfig, SimulatedClock, run_episode
from pipeline.episode import ACTION_NAMES, STATE_NAMES, Frame, Outcome, Source

LIMIT = 0.2


class PointRobot:
    """A robot whose tool is a point: enough to see which actions arrived."""

    def __init__(self) -> None:
        """Nothing has been sent yet."""
        self.sent: list[dict[str, Any]] = []
        self.broken_after: int | None = None

    def get_observation(self) -> dict[str, Any]:
        """All zeros, and a grey picture per camera."""
        observation: dict[str, Any] = dict.fromkeys(STATE_NAMES, 0.0)
        observation["gripper.pos"] = 0.5
        for camera in ("table", "wrist"):
            observation[camera] = np.full((4, 6, 3), 128, np.uint8)
        return observation

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Clips like a real robot."""
        if self.broken_after is not None and len(self.sent) == self.broken_after:
            self.broken_after = None
            raise ConnectionError("the arm is gone")
        clipped = {name: float(np.clip(value, -LIMIT, LIMIT)) for name, value in action.items()}
        self.sent.append(clipped)
        return clipped


class Person:
    """Takes over on the given steps, ends the episode at ``end``, and always asks for +1."""

    def __init__(self, take_over: range = range(0), end: int | None = None, mark: str | None = None) -> None:
        """``mark`` is the key pressed at the end."""
        self.take_over, self.end, self.mark = take_over, end, mark
        self.step = -1

    def get_action(self) -> dict[str, Any]:
        """Full speed ahead, beyond the limit."""
        return dict.fromkeys(ACTION_NAMES, 1.0)

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Called once a step."""
        self.step += 1
        ends = self.step == self.end
        return {
            TeleopEvents.IS_INTERVENTION: self.step in self.take_over,
            TeleopEvents.TERMINATE_EPISODE: ends,
            TeleopEvents.SUCCESS: ends and self.mark == "success",
            TeleopEvents.FAILURE: ends and self.mark == "failure",
        }


class Backward:
    """A policy that wants −0.1 everywhere and counts how often it was asked."""

    asked = 0

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """The same for every observation."""
        self.asked += 1
        return np.full(7, -0.1, np.float32)


class Frames(list[Frame]):
    """A recorder that keeps everything."""


FAST = LoopConfig(10.0, 10, real_time=False)


def test_teleoperation_records_what_was_sent_not_what_was_asked() -> None:
    """The person asks for 1, the robot clips to its limit, the episode holds the limit."""
    frames = Frames()
    summary = run_episode(PointRobot(), Person(end=4, mark="success"), FAST, recorder=frames)
    assert (summary.steps, summary.mark, summary.ended_by_operator) == (4, Outcome.SUCCESS, True)
    assert summary.seconds == pytest.approx(0.4)
    assert [f.source for f in frames] == [Source.TELEOP] * 4
    assert all(np.allclose(f.action, LIMIT) and f.policy_action is None for f in frames)
    assert summary.take_overs == summary.intervention_steps == 0


def test_a_person_takes_over_at_once_and_lets_go() -> None:
    """Steps 3–5 and only those are the person's; the policy is asked on every step all the same."""
    frames, policy = Frames(), Backward()
    summary = run_episode(PointRobot(), Person(range(3, 6)), FAST, policy=policy, recorder=frames)
    sources = [f.source for f in frames]
    assert sources == [Source.POLICY] * 3 + [Source.INTERVENTION] * 3 + [Source.POLICY] * 4
    assert [round(float(f.action[0]), 3) for f in frames] == [-0.1] * 3 + [LIMIT] * 3 + [-0.1] * 4
    assert all(f.policy_action is not None and np.allclose(f.policy_action, -0.1) for f in frames)
    assert policy.asked == len(frames) == summary.steps == 10
    assert (summary.take_overs, summary.intervention_steps) == (1, 3)
    assert not summary.ended_by_operator and summary.mark is None


def test_an_end_on_the_last_step_still_carries_its_mark() -> None:
    """The key pressed as time runs out counts."""
    summary = run_episode(PointRobot(), Person(end=10, mark="failure"), FAST)
    assert (summary.steps, summary.mark, summary.ended_by_operator) == (10, Outcome.FAILURE, True)


def test_an_exception_stops_the_arm_first() -> None:
    """The last thing sent before the error leaves is a zero twist with the gripper as it is."""
    robot = PointRobot()
    robot.broken_after = 2
    with pytest.raises(ConnectionError):
        run_episode(robot, Person(), FAST)
    assert [robot.sent[-1][n] for n in ACTION_NAMES[:6]] == [0.0] * 6
    assert robot.sent[-1]["gripper.target"] == pytest.approx(LIMIT)


def test_the_clock_and_the_pace() -> None:
    """Simulated time is exact; real time takes as long as the rate says."""
    frames = Frames()
    run_episode(PointRobot(), Person(end=3), FAST, recorder=frames, clock_ns=SimulatedClock(10.0))
    assert np.diff([f.timestamp_ns for f in frames]).tolist() == [100_000_000] * 2
    begin = time.monotonic()
    run_episode(PointRobot(), Person(end=5), LoopConfig(50.0, 10, real_time=True))
    assert time.monotonic() - begin >= 5 / 50 - 0.001


@pytest.mark.parametrize("bad", [{"rate_hz": 0.0}, {"max_steps": 0}])
def test_a_loop_that_cannot_run_is_refused(bad: dict[str, Any]) -> None:
    """Contradictions fail when the configuration is built."""
    with pytest.raises(ValueError, match="must be"):
        LoopConfig(**bad)
