"""A policy that cannot keep up is counted, held still, told to the operator; one that can is not accused."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collectors.collection_loop import LoopConfig, run_episode
from collectors.episode_log import End, EpisodeLog, EpisodeSummary
from collectors.operator_keys import OperatorKey
from collectors.policy_thread import RunAhead
from collectors.policy_timing import PlanReport, PlanTimes
from collectors.session_screen import starving_words
from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import TASK, Hand, MovingArm, ScriptedKeys
from tests.collectors.test_collection_session import QUICK, START, STOP, SUCCESS, Screen, run, script
from tests.collectors.test_policy_thread import Counting, asked, started, wait_for


def test_the_figures_are_those_of_what_was_noted() -> None:
    times = PlanTimes()
    assert times.report() == PlanReport()
    for latency in (0.010, 0.020, 0.030):
        times.came(latency)
    for left in (3, 1, 2):
        times.followed(left)
    for age in (0.05, 0.15):
        times.executed(age)
    report = times.report()
    assert (report.plans, report.least_left) == (3, 1)
    assert (report.p50_latency_ms, report.max_latency_ms) == pytest.approx((20.0, 30.0))
    assert 29 < report.p99_latency_ms < 30 and report.p50_age_ms == pytest.approx(100.0)
    assert report.as_json()["p50_latency_ms"] == 20.0


def test_a_report_is_of_the_episodes_steps_alone() -> None:
    planner = Counting(length=8)
    with RunAhead(planner, 20.0, execute_steps=4) as policy:
        assert policy.report() == PlanReport()
        started(policy)
        assert policy.report().plans == 0, "the first plan, for which nobody waits in an episode"
        for step in range(20):
            assert asked(policy, step) == step
            wait_for(lambda: not policy._asked)
        report = policy.report()
        assert report.plans == policy.calls - 1 >= 4
        assert report.least_left is not None and 3 <= report.least_left <= 6
        assert 0 < report.p50_latency_ms <= report.p99_latency_ms <= report.max_latency_ms
        assert 0 < report.p50_age_ms <= report.p99_age_ms
        policy.reset(TASK)
        assert policy.report() == PlanReport(), "another episode"


def test_the_next_chunk_comes_before_the_last_one_is_used_up() -> None:
    """Also of a policy that means to execute its whole chunk, as LeRobot's large ones do."""

    class Whole(Counting):
        execute_steps = 50

    planner = Whole(length=50)
    with RunAhead(planner, 20.0) as policy:
        started(policy)
        for step in range(60):
            assert asked(policy, step) == step
            wait_for(lambda: not policy._asked)
        # A quarter of a second at 20 Hz; one more step where a plan took a step's time.
        assert 5 <= (policy.report().least_left or 0) <= 15
        assert policy.calls == 2


class Stalling:
    """Goes up for eight steps a plan; each plan after the first comes only when it may."""

    execute_steps = 4

    def __init__(self) -> None:
        """May."""
        self.may_plan = threading.Event()
        self.may_plan.set()

    def reset(self, task: str, seed: int | None = None) -> None:
        """Nothing to do."""

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Up at 0.02 m/s."""
        assert self.may_plan.wait(30)
        chunk = np.zeros((8, 7), np.float32)
        chunk[:, 2], chunk[:, 6] = 0.02, 0.5
        return chunk


def test_an_empty_queue_holds_the_arm_and_is_told_from_a_plan_that_was_dropped() -> None:
    planner, arm, hand, log = Stalling(), MovingArm(), Hand(), EpisodeLog()
    frames: list[Any] = []
    empty_at: list[int] = []

    def look(_: Any) -> None:
        if not empty_at and len(frames) == 12:
            planner.may_plan.clear()
        if not empty_at and log.starved_steps == 5:
            empty_at.append(len(frames))
            assert not arm.is_moving()
            planner.may_plan.set()
        if empty_at:
            hand.driving = empty_at[0] + 6 <= len(frames) < empty_at[0] + 10

    def is_over() -> bool:
        driven = [frame.source is Source.POLICY and frame.policy_action is not None for frame in frames[-5:]]
        return bool(empty_at) and len(frames) > empty_at[0] + 12 and all(driven)

    with RunAhead(planner, 50.0) as policy:
        started(policy)
        summary = run_episode(
            arm,
            hand,
            LoopConfig(50.0, 3000),
            policy=policy,
            recorder=frames,
            keys=ScriptedKeys((is_over, OperatorKey.SUCCESS)),
            log=log,
            on_step=look,
        )
    silent = [n for n, f in enumerate(frames) if f.source is Source.POLICY and f.policy_action is None]
    assert all(not frames[n].action[:6].any() for n in silent)
    assert all(frames[n].action[6] == frames[n - 1].action[6] for n in silent), "what it holds stays held"
    assert len(silent) == summary.starved_steps
    assert summary.take_overs == 1 and summary.replanning_steps >= 1
    assert 5 <= summary.empty_queue_steps == summary.starved_steps - summary.replanning_steps
    extra = log.extra()
    assert extra["replanning_steps"] == summary.replanning_steps
    assert summary.plans is not None and extra["plans"] == summary.plans.as_json()
    assert extra["plans"]["max_latency_ms"] > 80, "the stall of more than four steps at 50 Hz"


class Slow(Stalling):
    """Thinks longer than its chunks last."""

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """After 150 ms, which are 15 steps at 100 Hz."""
        time.sleep(0.15)
        return super().plan(observation)


def test_the_operator_hears_of_a_policy_that_starved_and_the_episode_keeps_it(workspace: Workspace) -> None:
    arm, screen = MovingArm(), Screen()
    keys = script(arm, START, (80, SUCCESS), (60, STOP))
    summary = run(workspace, arm, keys, replace(QUICK, policy_name="slow"), policy=Slow(), telemetry=screen)
    (entry,) = workspace.list_episodes()
    with EpisodeReader(entry.path) as episode:
        silent = ~np.isfinite(episode.policy_actions).all(axis=1)
        assert not episode.actions[silent][:, :6].any()
    extra = entry.info.extra
    assert extra["starved_steps"] == silent.sum() > 10 and "replanning_steps" not in extra
    assert extra["plans"]["p50_latency_ms"] > 150
    (problem,) = summary.problems
    assert problem.startswith(f"{entry.id}: the policy had no action for {extra['starved_steps']} of ")
    assert "the arm held still (plans took " in problem and "lower --rate" in problem
    assert any(problem in shown.message for shown in screen.shown), "at the end of the episode"
    assert any(shown.starved for shown in screen.shown), "while it runs"


def test_a_policy_that_only_planned_anew_is_not_accused() -> None:
    summary = EpisodeSummary(100, 5.0, None, True, 2, 20, starved_steps=4, replanning_steps=4)
    assert starving_words("x", summary) == []
    failed = EpisodeLog(steps=100, starved_steps=6, replanning_steps=4, empty_run=2, end=End.POLICY_FAILED)
    assert starving_words("x", failed.summary(20.0)) == [], "the server was gone, not slow"
    assert starving_words("x", replace(failed, end=End.OPERATOR).summary(20.0)) != []
    (words,) = starving_words("x", replace(summary, starved_steps=5))
    assert words is not None and "no action for 1 of 100 steps, and the arm held still: use" in words
