"""A policy in a thread of its own: never waited for, its late actions skipped, its silence held still."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collectors.collection_loop import End, LoopConfig, run_episode
from collectors.operator_keys import OperatorKey
from collectors.policy_thread import RunAhead
from pipeline.episode import Frame, Source
from pipeline.errors import Failure, InputError
from tests.collectors.moving_arm import Hand, MovingArm, ScriptedKeys

TASK = "pick up the red cube"


class Counting:
    """Plans from the observation of step ``k`` the actions k, k + 1, ... as thousandths on every axis."""

    def __init__(self, length: int = 16, seconds: float = 0.0) -> None:
        """``length`` of a chunk; a plan takes ``seconds``."""
        self.length, self.seconds = length, seconds
        self.saw: list[int] = []
        self.resets: list[tuple[str, int | None]] = []
        self.may_plan = threading.Event()
        self.may_plan.set()
        self.error: Exception | None = None

    def reset(self, task: str, seed: int | None = None) -> None:
        """Remembers it."""
        self.resets.append((task, seed))

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Waits as long as it is told to."""
        self.saw.append(observation["step"])
        assert self.may_plan.wait(10)
        time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        steps = observation["step"] + np.arange(self.length, dtype=np.float32)
        return np.repeat(steps[:, None] / 1000, 7, axis=1)


def wait_for(condition: Callable[[], bool]) -> None:
    """For as long as a very busy machine may need."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def asked(policy: RunAhead, step: int) -> int | None:
    """The number that the policy gives for ``step``."""
    action = policy.act({"step": step})
    return None if action is None else round(float(action[0]) * 1000)


def started(policy: RunAhead) -> None:
    """Until the first plan is there."""
    policy.reset(TASK)
    wait_for(lambda: policy.is_ready({"step": 0}))


def test_the_action_of_a_step_comes_from_the_plan_for_that_step() -> None:
    planner = Counting(length=8)
    with RunAhead(planner, 20.0, execute_steps=4) as policy:
        started(policy)
        for step in range(40):
            assert asked(policy, step) == step
            wait_for(lambda: not policy._asked)
        assert planner.resets == [(TASK, None)]
        assert 8 <= policy.calls <= 12, "every fourth step asks for a plan"


def test_actions_whose_time_has_passed_are_skipped() -> None:
    planner = Counting(length=8)
    with RunAhead(planner, 20.0, execute_steps=2) as policy:
        started(policy)
        planner.may_plan.clear()
        given = [asked(policy, step) for step in range(6)]
        assert given == [0, 1, 2, 3, 4, 5], "what is left of the old plan goes on"
        wait_for(lambda: len(planner.saw) == 2)
        planner.may_plan.set()
        wait_for(lambda: policy._chunk is not None and policy._chunk.first_step > 0)
        assert policy._chunk is not None and policy._chunk.first_step <= 5
        assert asked(policy, 6) == 6, "the first actions of the new plan are past"


def test_an_arm_that_was_held_goes_on_where_it_was_held() -> None:
    planner = Counting(length=4)
    with RunAhead(planner, 20.0) as policy:
        started(policy)
        planner.may_plan.clear()
        assert [asked(policy, step) for step in range(4)] == [0, 1, 2, 3]
        assert [asked(policy, 4) for _ in range(30)] == [None] * 30
        planner.may_plan.set()
        wait_for(lambda: policy._chunk is not None and policy._chunk.at(4) is not None)
        assert asked(policy, 4) == 4


def test_a_dropped_plan_is_not_used_even_if_it_comes_later() -> None:
    planner = Counting()
    with RunAhead(planner, 20.0) as policy:
        started(policy)
        calls = policy.calls
        planner.may_plan.clear()
        policy.drop_plan()
        assert asked(policy, 0) is None
        wait_for(lambda: len(planner.saw) > calls)
        policy.drop_plan()
        assert asked(policy, 500) is None
        planner.may_plan.set()
        wait_for(lambda: policy._chunk is not None)
        assert asked(policy, 0) == 500


def test_two_plans_are_joined_smoothly_where_asked() -> None:
    class Jumping(Counting):
        def plan(self, observation: dict[str, Any]) -> np.ndarray:
            self.saw.append(0)
            return np.full((16, 7), float(len(self.saw) > 1), np.float32)

    with RunAhead(Jumping(), 20.0, execute_steps=8, blend_steps=3) as policy:
        started(policy)
        values, grippers = [], []
        for step in range(14):
            action = policy.act({"step": step})
            assert action is not None
            values.append(round(float(action[0]), 2))
            grippers.append(float(action[6]))
            wait_for(lambda: not policy._asked)
    begin = values.index(0.25)
    assert set(values[:begin]) == {0.0} and values[begin : begin + 3] == [0.25, 0.5, 0.75]
    assert grippers[begin] == 1.0, "the gripper switches at once"


def test_what_the_planner_raises_reaches_the_loop_as_one_line() -> None:
    planner = Counting()
    with RunAhead(planner, 20.0) as policy:
        started(policy)
        for error, kind, message in (
            (ValueError("shape"), Failure, "the policy failed: ValueError: shape"),
            (InputError("no camera"), InputError, "no camera"),
        ):
            planner.error = error
            policy.drop_plan()
            policy.act({"step": 0})
            wait_for(lambda: policy._error is not None)
            with pytest.raises(kind, match=message):
                policy.act({"step": 0})
        planner.error = None
        policy.reset(TASK, 7)
        wait_for(lambda: policy.is_ready({"step": 0}))
        assert planner.resets[-1] == (TASK, 7)


@pytest.mark.parametrize("chunk", [np.zeros((0, 7)), np.zeros((4, 6)), np.zeros(7), np.full((4, 7), np.nan)])
def test_a_chunk_that_is_none_is_refused(chunk: np.ndarray) -> None:
    class Broken(Counting):
        def plan(self, observation: dict[str, Any]) -> np.ndarray:
            return chunk

    with RunAhead(Broken(), 20.0) as policy:
        policy.act({})
        wait_for(lambda: policy._error is not None)
        with pytest.raises(Failure, match="the policy gave"):
            policy.act({})


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="execute_steps"):
        RunAhead(Counting(), 20.0, execute_steps=0)
    with pytest.raises(InputError, match="blend_steps"):
        RunAhead(Counting(), 20.0, blend_steps=-1)


class Upwards:
    """Needs 400 ms to say: up, at 0.02 m/s, for the next ``length`` steps."""

    def __init__(self, length: int) -> None:
        """A chunk of ``length``."""
        self.length = length

    def reset(self, task: str, seed: int | None = None) -> None:
        """Nothing to do."""

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Slowly."""
        time.sleep(0.4)
        chunk = np.zeros((self.length, 7), np.float32)
        chunk[:, 2] = 0.02
        return chunk


class Run:
    """An episode at 20 Hz with a policy of 400 ms a call."""

    def __init__(self, length: int) -> None:
        """``length`` of the policy's chunks."""
        self.length = length
        self.frames: list[Frame] = []
        self.hand = Hand()

    def until(self, is_over: Callable[[], bool], on_step: Callable[[], None] = lambda: None) -> Any:
        """Runs it until ``is_over``, at most 20 s; returns the summary. The arm stands still at the end."""
        keys, arm = ScriptedKeys((is_over, OperatorKey.SUCCESS)), MovingArm()
        with RunAhead(Upwards(self.length), 20.0) as policy:
            policy.reset(TASK)
            summary = run_episode(
                arm,
                self.hand,
                LoopConfig(20.0, 400),
                policy=policy,
                recorder=self.frames,
                keys=keys,
                on_step=lambda _: on_step(),
            )
        assert summary.end is End.OPERATOR and not arm.is_moving()
        assert summary.pace.p50_jitter_ms < 100, "steps of 400 ms would be 350 ms late"
        return summary

    def has_policy(self, count: int) -> bool:
        """Whether the latest ``count`` frames were driven by the policy's own actions."""
        last = self.frames[-count:]
        return len(last) == count and all(
            frame.source is Source.POLICY and frame.policy_action is not None for frame in last
        )


def test_a_policy_of_400_ms_never_stalls_a_loop_of_20_hz() -> None:
    run = Run(24)
    run.until(lambda: run.has_policy(12))
    starved = [frame for frame in run.frames if frame.policy_action is None]
    assert len(starved) >= 4 and run.frames[0] is starved[0], "nobody waited for its first answer"
    assert all(not frame.action[:6].any() for frame in starved)
    driven = [frame for frame in run.frames if frame.policy_action is not None]
    assert all(frame.action[2] == np.float32(0.02) for frame in driven)


def test_chunks_shorter_than_the_policy_is_slow_move_the_arm_by_fits_and_starts() -> None:
    run = Run(6)

    def moved() -> list[bool]:
        return [bool(frame.action[2]) for frame in run.frames]

    run.until(lambda: str(moved()).count("False, True") >= 3)
    assert moved().count(True) >= 6


def test_a_person_takes_a_slow_policy_over_in_the_same_step_and_it_plans_anew() -> None:
    run = Run(24)
    taken: list[int] = []

    def look() -> None:
        if not taken and run.has_policy(3):
            run.hand.driving = True
            taken.append(len(run.frames))
        elif taken and len(run.frames) == taken[0] + 5:
            run.hand.driving = False

    summary = run.until(lambda: bool(taken) and len(run.frames) > taken[0] + 5 and run.has_policy(3), look)
    (first,) = taken
    frames = run.frames
    assert [frame.source for frame in frames[first - 1 : first + 6]] == [
        Source.POLICY,
        *[Source.INTERVENTION] * 5,
        Source.POLICY,
    ]
    assert all(frame.action[2] == np.float32(0.05) for frame in frames[first : first + 5])
    assert frames[first].policy_action is not None, "what it wanted when it was taken over"
    assert frames[first + 5].policy_action is None, "after the hand-back it plans from where the arm is"
    assert frames[-1].action[2] == np.float32(0.02) and summary.take_overs == 1


class Remembering(Counting):
    """One that looks at three observations."""

    observed_steps = 3
    execute_steps = 4

    def __init__(self) -> None:
        """Like a fast one."""
        super().__init__(length=8)
        self.together: list[list[int]] = []

    def plan(self, observation: dict[str, Any], before: list[dict[str, Any]] | None = None) -> np.ndarray:
        """Notes the steps that it is shown."""
        assert before is not None
        self.together.append([seen["step"] for seen in [*before, observation]])
        return super().plan(observation)


def test_a_policy_of_several_observations_gets_those_of_successive_steps() -> None:
    planner = Remembering()
    with RunAhead(planner, 20.0) as policy:
        started(policy)
        for step in range(10):
            asked(policy, step)
            time.sleep(0.005)
        policy.drop_plan()
        asked(policy, 10)
        wait_for(lambda: [8, 9, 10] in planner.together)  # a dropped plan leaves what was seen
        policy.reset(TASK)
        wait_for(lambda: policy.is_ready({"step": 0}))
    assert planner.together[0] == [0]
    assert planner.together[-1] == [0], "another episode"
    for shown in planner.together:
        assert shown == list(range(max(0, shown[-1] - 2), shown[-1] + 1))
