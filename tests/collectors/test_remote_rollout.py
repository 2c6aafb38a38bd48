"""A session whose policy is behind a real socket, on an arm that keeps its last twist in force."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.collection_session import SessionSettings, run_session
from collectors.episode_log import End
from collectors.operator_keys import OperatorKey
from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.policy.remote import RemotePolicy
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import TASK, Hand, MovingArm, ScriptedKeys, after_commands
from tests.pipeline.policy_serving import Weighing, serving

SETTINGS = SessionSettings(
    TASK,
    "tester",
    50.0,
    episodes=1,
    auto_start_s=0.0,
    max_seconds=60,
    policy_name="weighing",
    min_free_bytes=0,
)


def test_a_remote_policy_drives_the_arm(tmp_path: Path) -> None:
    arm, workspace = MovingArm(), Workspace(tmp_path)
    keys = ScriptedKeys((after_commands(arm, 30), OperatorKey.SUCCESS))
    with serving(Weighing()) as server, RemotePolicy(server.url) as remote:
        summary = run_session(workspace, arm, Hand(), keys, SETTINGS, policy=remote)
    assert summary.episodes[0].summary.end is End.OPERATOR
    with EpisodeReader(workspace.episode_path(TASK, summary.episodes[0].id)) as episode:
        assert episode.info.policy_checkpoint == "weighing"
        assert (episode.sources == Source.POLICY).all()
        driven = np.isfinite(episode.policy_actions).all(axis=1)
        assert driven.sum() > 5
        np.testing.assert_array_equal(episode.actions[driven], episode.policy_actions[driven])
    assert not arm.is_moving()


def test_a_remote_policy_with_a_memory_is_shown_successive_steps(tmp_path: Path) -> None:
    """What it saw with each plan are frames that follow each other in the recorded episode."""

    class Remembering(Weighing):
        observed_steps = 3

        def __init__(self) -> None:
            super().__init__()
            self.saw: list[list[float]] = []

        def plan(
            self, observation: dict[str, Any], before: Sequence[dict[str, Any]] | None = None
        ) -> np.ndarray:
            assert before is not None
            self.saw.append([seen["tool.z"] for seen in (*before, observation)])
            chunk = np.zeros((5, 7), np.float32)
            chunk[:, 2] = 0.02  # every frame is higher than the one before
            return chunk

    arm, policy = MovingArm(), Remembering()
    keys = ScriptedKeys((after_commands(arm, 40), OperatorKey.SUCCESS))
    with serving(policy) as server, RemotePolicy(server.url) as remote:
        summary = run_session(Workspace(tmp_path), arm, Hand(), keys, SETTINGS, policy=remote)
    with EpisodeReader(Workspace(tmp_path).episode_path(TASK, summary.episodes[0].id)) as episode:
        heights = episode.state("tool_pose")[:, 2]
    assert len(policy.saw[0]) == 1, "before the first frame nothing was seen"
    later = [saw for saw in policy.saw if len(saw) == 3]
    assert len(later) > 3
    for saw in later:
        newest = int(np.flatnonzero(heights == np.float32(saw[-1]))[-1])
        assert heights[newest - 2 : newest + 1].tolist() == np.array(saw, np.float32).tolist()


def test_a_server_that_dies_in_mid_motion_stops_the_arm_and_keeps_the_episode(tmp_path: Path) -> None:
    arm, workspace = MovingArm(), Workspace(tmp_path)
    with serving(Weighing()) as server, RemotePolicy(server.url) as remote:

        def kill() -> None:
            while len(arm.sent) < 40:
                over.wait(0.005)
            server.close()

        over = threading.Event()
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with pytest.raises(Failure, match=r"the policy server tcp://\S+ was lost") as failure:
                run_session(workspace, arm, Hand(), None, SETTINGS, policy=remote)
        finally:
            arm.sent += [np.zeros(7, np.float32)] * 40  # ends the thread also where the session never began
            killer.join()
    assert "\n" not in str(failure.value)
    assert not arm.is_moving()
    (path,) = workspace.episodes.rglob("*.h5")
    with EpisodeReader(path) as episode:
        assert episode.info.truncated
        assert len(episode) > 10
        assert "was lost" in episode.info.extra["ended"]["why"]


def test_a_policy_that_does_not_fit_is_refused_before_the_arm_moves(tmp_path: Path) -> None:
    class ThreeEyed(Weighing):
        cameras = ("table", "wrist", "left")

    arm = MovingArm()
    with (
        serving(ThreeEyed()) as server,
        RemotePolicy(server.url) as remote,
        pytest.raises(InputError, match=r"needs camera 'left', the robot has table, wrist"),
    ):
        run_session(Workspace(tmp_path), arm, Hand(), None, SETTINGS, policy=remote)
    assert arm.sent == []
