"""What a policy says that it does reaches the operator and the episode with the actions that it is for."""

from __future__ import annotations

from typing import Any

import numpy as np

from collectors.collection_loop import LoopConfig, run_episode
from collectors.episode_log import EpisodeLog
from collectors.live_panel import driver_words
from collectors.operator_keys import OperatorKey
from collectors.policy_thread import RunAhead
from collectors.telemetry import Phase, Snapshot
from pipeline.episode import Source
from pipeline.policy.remote import RemotePolicy
from tests.collectors.moving_arm import TASK, Hand, MovingArm, ScriptedKeys
from tests.collectors.test_policy_thread import Counting, asked, started, wait_for
from tests.pipeline.policy_serving import Weighing, observation, serving

REACH, LIFT = "reach the red cube", "lift the red cube"


class Saying(Counting):
    """Lifts from step 10 on, and says so."""

    subtask: str | None = None
    execute_steps = 4

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Says it before it acts."""
        self.subtask = REACH if observation["step"] < 10 else LIFT
        return super().plan(observation)


def test_a_subtask_is_said_with_the_actions_of_its_chunk_and_not_before() -> None:
    planner = Saying(length=8)
    with RunAhead(planner, 0.01) as policy:
        started(policy)
        assert policy.subtask is None, "nothing of it was executed yet"
        for step in range(20):
            asked(policy, step)
            assert policy._chunk is not None
            first = policy._chunk.first_step
            assert policy.subtask == (REACH if first < 10 else LIFT)
            wait_for(lambda: not policy._asked)
        assert policy.subtask == LIFT
        policy.reset(TASK)
        assert policy.subtask is None


class Stepping(MovingArm):
    """Counts its observations."""

    def get_observation(self) -> dict[str, Any]:
        """With their number."""
        return super().get_observation() | {"step": len(self.sent)}


def test_the_episode_keeps_from_which_frame_on_it_did_what() -> None:
    arm, log, frames = Stepping(), EpisodeLog(), list[Any]()
    with RunAhead(Saying(length=8), 50.0) as policy:
        started(policy)
        run_episode(
            arm,
            Hand(),
            LoopConfig(50.0, 500),
            policy=policy,
            recorder=frames,
            keys=ScriptedKeys((lambda: log.subtask == LIFT and len(frames) > 20, OperatorKey.SUCCESS)),
            log=log,
        )
    reached, lifted = log.extra()["subtasks"]
    assert reached == {"from_frame": 0, "subtask": REACH}
    assert lifted["subtask"] == LIFT and 10 <= lifted["from_frame"] < len(frames)


def test_the_operator_reads_it() -> None:
    running = Snapshot(Phase.RUNNING, TASK, driver=Source.POLICY, subtask=LIFT)
    assert driver_words(running) == f"the policy drives: {LIFT}"
    assert driver_words(Snapshot(Phase.RUNNING, TASK, driver=Source.POLICY)) == "the policy drives"


def test_it_comes_over_the_wire_with_the_plan() -> None:
    policy = Weighing()
    with serving(policy) as server, RemotePolicy(server.url) as remote:
        remote.reset(TASK)
        for subtask in (None, REACH, LIFT, None):
            policy.subtask = subtask
            remote.plan(observation())
            assert remote.subtask == subtask
        policy.subtask = LIFT
        remote.act(observation())
        assert remote.subtask == LIFT
        remote.reset(TASK)
        assert remote.subtask is None
