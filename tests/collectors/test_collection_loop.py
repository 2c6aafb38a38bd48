"""Who drives, what is recorded and when the loop ends, on a robot small enough to check by hand."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from lerobot.teleoperators.utils import TeleopEvents

from collectors.collection_loop import End, EpisodeLog, LoopConfig, SimulatedClock, run_episode
from collectors.operator_keys import OperatorKey
from pipeline.episode import ACTION_NAMES, STATE_NAMES, Frame, Outcome, Source
from tests.collectors.moving_arm import Hand, MovingArm

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


class Keys:
    """Presses a key when so many looks have been taken."""

    def __init__(self, script: dict[int, list[OperatorKey]]) -> None:
        """``script`` maps the number of a look, from 0, to the keys that were pressed before it."""
        self.script, self.looks = script, -1

    def take_keys(self) -> list[OperatorKey]:
        """Called once a step."""
        self.looks += 1
        return self.script.get(self.looks, [])


class Chunks(Backward):
    """A policy that counts up from its latest plan on."""

    def __init__(self) -> None:
        """Nothing is planned."""
        self.dropped: list[int] = []
        self.since = 0

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """Hundredths since the plan began."""
        self.asked += 1
        self.since += 1
        return np.full(7, self.since / 100, np.float32)

    def drop_plan(self) -> None:
        """Begins again with the next observation."""
        self.dropped.append(self.asked)
        self.since = 0


def test_the_policy_plans_anew_from_where_the_person_left_the_arm() -> None:
    """The step of the take-over is the person's and still shows the old plan; both edges end a plan."""
    frames, policy = Frames(), Chunks()
    run_episode(PointRobot(), Person(range(3, 6)), FAST, policy=policy, recorder=frames)
    assert policy.dropped == [4, 6]
    wanted = [round(float(f.policy_action[0]) * 100) for f in frames if f.policy_action is not None]
    assert wanted == [1, 2, 3, 4, 1, 2, 1, 2, 3, 4]
    assert float(frames[3].action[0]) == pytest.approx(LIMIT)


def test_a_policy_without_an_action_holds_still() -> None:
    """Zero twist, the gripper as it was told last; counted, and not passed off as the policy's wish."""

    class Starving(Backward):
        def act(self, observation: dict[str, Any]) -> np.ndarray | None:  # type: ignore[override]  # on purpose
            self.asked += 1
            return None if 3 <= self.asked < 6 else np.full(7, 0.1, np.float32)

    frames, log = Frames(), EpisodeLog()
    summary = run_episode(PointRobot(), Person(), FAST, policy=Starving(), recorder=frames, log=log)
    assert summary.starved_steps == 3 and log.extra() == {"starved_steps": 3}
    held = frames[2:5]
    assert all(not f.action[:6].any() and f.action[6] == np.float32(0.1) for f in held)
    assert all(f.policy_action is None and f.source is Source.POLICY for f in held)


@pytest.mark.parametrize(
    ("key", "end", "mark", "truncated"),
    [
        (OperatorKey.SUCCESS, End.OPERATOR, Outcome.SUCCESS, False),
        (OperatorKey.FAILURE, End.OPERATOR, Outcome.FAILURE, False),
        (OperatorKey.DISCARD, End.DISCARDED, None, True),
        (OperatorKey.STOP, End.STOPPED, None, True),
        (OperatorKey.EMERGENCY_STOP, End.EMERGENCY_STOP, None, True),
    ],
)
def test_keys_end_the_episode(key: OperatorKey, end: End, mark: Outcome | None, truncated: bool) -> None:
    summary = run_episode(PointRobot(), Person(), FAST, keys=Keys({4: [key]}))
    assert (summary.steps, summary.end, summary.mark) == (4, end, mark)
    assert summary.truncated is truncated and summary.ended_by_operator
    assert summary.stop_asked is (key is OperatorKey.STOP)


def test_an_emergency_stop_goes_before_every_other_key_and_stops_any_arm() -> None:
    robot = PointRobot()
    keys = Keys({2: [OperatorKey.SUCCESS, OperatorKey.EMERGENCY_STOP]})
    assert run_episode(robot, Person(), FAST, keys=keys).end is End.EMERGENCY_STOP
    assert not any(robot.sent[-1][n] for n in ACTION_NAMES[:6])
    arm = MovingArm()
    summary = run_episode(arm, Hand(), LoopConfig(100.0, 50), keys=Keys({5: [OperatorKey.EMERGENCY_STOP]}))
    assert (summary.end, arm.emergency_stops, summary.steps) == (End.EMERGENCY_STOP, 1, 5)
    assert not arm.is_moving()


def test_a_pause_records_nothing_and_holds_the_arm() -> None:
    frames, log = Frames(), EpisodeLog()
    keys = Keys({3: [OperatorKey.PAUSE], 7: [OperatorKey.START], 11: [OperatorKey.SUCCESS]})
    robot = PointRobot()
    clock = SimulatedClock(10.0)
    policy = Chunks()
    summary = run_episode(
        robot, Person(), FAST, policy=policy, recorder=frames, keys=keys, log=log, clock_ns=clock
    )
    assert (summary.steps, len(frames), len(robot.sent)) == (7, 7, 11)
    assert all(not any(sent[n] for n in ACTION_NAMES[:6]) for sent in robot.sent[3:7])
    assert np.diff([f.timestamp_ns for f in frames]).tolist() == [10**8] * 2 + [5 * 10**8] + [10**8] * 3
    assert [pause["before_frame"] for pause in log.extra()["pauses"]] == [3]
    assert policy.dropped == [3]


def test_a_pause_is_ended_with_its_episode() -> None:
    log = EpisodeLog()
    keys = Keys({3: [OperatorKey.PAUSE], 6: [OperatorKey.PAUSE, OperatorKey.PAUSE], 8: [OperatorKey.FAILURE]})
    summary = run_episode(PointRobot(), Person(), FAST, keys=keys, log=log)
    assert (summary.mark, summary.steps) == (Outcome.FAILURE, 3)
    assert [pause["before_frame"] for pause in log.pauses] == [3, 3]
