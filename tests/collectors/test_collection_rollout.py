"""Sessions in which a policy drives: planned before the first frame, refused, or ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collectors.episode_log import End
from collectors.session_settings import SessionSummary
from collectors.telemetry import Phase
from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import TASK, MovingArm, ScriptedKeys, after_commands
from tests.collectors.test_collection_session import FAILURE, QUICK, START, STOP, SUCCESS, Screen, run, script


class Ascending:
    """A policy that wants to go up, slowly thought out, and then may fail."""

    def __init__(self, fails_at: int | None = None) -> None:
        """``fails_at`` is the number of the plan that raises."""
        self.plans = 0
        self.fails_at = fails_at
        self.resets: list[tuple[str, int | None]] = []

    def check_robot(
        self, observation_features: Mapping[str, Any], action_features: Mapping[str, Any]
    ) -> None:
        """Wants the two cameras that every robot of ours has."""
        if "wrist" not in observation_features:
            raise InputError("the checkpoint needs camera 'wrist'")

    def reset(self, task: str, seed: int | None = None) -> None:
        """Remembers it."""
        self.resets.append((task, seed))

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Sixteen steps at 0.02 m/s."""
        self.plans += 1
        if self.plans == self.fails_at:
            raise RuntimeError("out of memory")
        time.sleep(0.05)
        chunk = np.zeros((16, 7), np.float32)
        chunk[:, 2] = 0.02
        return chunk


def test_a_rollout_begins_with_a_plan_and_plans_again_for_each_episode(workspace: Workspace) -> None:
    arm, policy = MovingArm(), Ascending()
    settings = replace(QUICK, seed=40, policy_name="base/abc")
    summary = run(
        workspace, arm, script(arm, START, (30, SUCCESS), START, (30, FAILURE), STOP), settings, policy=policy
    )
    assert policy.resets == [(TASK, 41), (TASK, 42)]
    for entry in workspace.list_episodes():
        assert entry.info.policy_checkpoint == "base/abc"
        with EpisodeReader(entry.path) as episode:
            assert (episode.sources == Source.POLICY).all()
            assert np.isfinite(episode.policy_actions[0]).all(), "no wait at the start"
    assert len(summary.episodes) == 2


def test_a_policy_that_fails_without_anybody_there_ends_the_session_with_its_reason(
    workspace: Workspace,
) -> None:
    arm, alone = MovingArm(), replace(QUICK, auto_start_s=0.0)
    ended: list[SessionSummary] = []
    with pytest.raises(Failure, match="the policy failed: RuntimeError: out of memory"):
        run(workspace, arm, None, alone, policy=Ascending(fails_at=3), at_end=ended.append)
    (entry,) = workspace.list_episodes()
    assert entry.info.truncated and "out of memory" in entry.info.extra["ended"]["why"]
    assert [episode.id for episode in ended[0].episodes] == [entry.id]
    assert not arm.is_moving()
    arm = MovingArm()
    with pytest.raises(Failure, match="out of memory"):
        run(workspace, arm, None, alone, policy=Ascending(fails_at=1))
    assert not any(command[:6].any() for command in arm.sent)


def test_a_policy_that_fails_in_mid_episode_is_asked_again_at_the_next_start(workspace: Workspace) -> None:
    arm, policy, screen = MovingArm(), Ascending(fails_at=3), Screen()

    def failed(times: int) -> Callable[[], bool]:
        return lambda: (
            bool(screen.shown)
            and (
                screen.shown[-1].phase is Phase.WAITING
                and "out of memory" in screen.shown[-1].message
                and len(policy.resets) == times
            )
        )

    def start_and_fail_at_once() -> bool:
        if failed(1)() and not arm.is_moving():
            policy.fails_at = policy.plans + 1
            return True
        return False

    keys = ScriptedKeys(
        (after_commands(arm, 10), START),
        (start_and_fail_at_once, START),
        (failed(2), START),
        (lambda: len(policy.resets) == 3 and screen.shown[-1].frames > 20, SUCCESS),
        (after_commands(arm, 5), STOP),
    )
    summary = run(workspace, arm, keys, policy=policy, telemetry=screen)
    first, second = workspace.list_episodes()
    assert first.info.truncated and first.info.extra["ended"]["by"] == End.POLICY_FAILED.value
    assert not second.info.truncated and second.info.operator_mark == "success"
    assert [episode.id for episode in summary.episodes] == [first.id, second.id]
    assert len(summary.problems) == 2
    waiting = [shown for shown in screen.shown if shown.phase is Phase.WAITING and shown.done == 1]
    assert "episode 1 ended by the policy, which failed, and kept" in waiting[0].message


def test_a_policy_for_another_robot_is_refused_before_the_arm_moves(workspace: Workspace) -> None:
    class OneCamera(MovingArm):
        @property
        def observation_features(self) -> dict[str, Any]:
            return {n: kind for n, kind in super().observation_features.items() if n != "wrist"}

    arm = OneCamera()
    with pytest.raises(InputError, match="camera 'wrist'"):
        run(workspace, arm, script(arm, START), policy=Ascending())
    assert arm.sent == []
