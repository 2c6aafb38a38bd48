"""Runs an evaluation on an arm of the tests' own, killing it again and again; each process goes on with it.

``python -m tests.workflows.killed_evaluation ROOT KILLS SEED`` kills KILLS processes at random moments, then
lets one go on to the end, and prints how many were killed. The processes are forks of this one, which has
imported everything and runs no thread.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from collectors.collection_session import SessionSettings, SessionSummary, run_session
from collectors.operator_keys import OperatorKey
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import TASK, Hand, MovingArm, ScriptedKeys
from workflows import policy_evaluation_runs as recorded
from workflows.policy_evaluation_course import EvaluationCourse
from workflows.policy_evaluation_plan import EvaluationPlan, PlannedPolicy, read_plan

START, SUCCESS, FAILURE, AGAIN, STOP = (
    OperatorKey.START,
    OperatorKey.SUCCESS,
    OperatorKey.FAILURE,
    OperatorKey.DISCARD,
    OperatorKey.STOP,
)
PLAN = EvaluationPlan(
    "kept",
    MovingArm.name,
    (
        PlannedPolicy("old", "old/0", "0" * 64, "positive", "/old"),
        PlannedPolicy("new", "new/1", "1" * 64, "positive", "/new"),
    ),
    5,
    (TASK,),
    5.0,
    100.0,
    None,
    "0123456789abcdef",
    7,
)
SETTINGS = SessionSettings(
    TASK, "ana", rate_hz=PLAN.rate_hz, max_seconds=PLAN.max_seconds, min_free_bytes=0, reserve_bytes=0
)


class Upwards:
    """A policy that goes up."""

    def __init__(self, speed: float) -> None:
        """In m/s: by it the recordings tell who drove."""
        self.speed = speed

    def reset(self, task: str, seed: int | None = None) -> None:
        """Forgets nothing."""

    def plan(self, observation: dict[str, Any]) -> np.ndarray:
        """Sixteen steps."""
        chunk = np.zeros((16, 7), np.float32)
        chunk[:, 2] = self.speed
        return chunk


SPEEDS = (0.02, 0.04)
STEADY = 8  # commands


def go_on(
    workspace: Workspace,
    keys: Callable[[MovingArm], ScriptedKeys],
    *,
    plan: EvaluationPlan = PLAN,
    settings: SessionSettings = SETTINGS,
    policies: type[Upwards] = Upwards,
    **more: Any,
) -> SessionSummary:
    """What is left of the evaluation, as the command runs it, with this arm and these keys."""
    if read_plan(workspace, plan.name) is None:
        plan.save(workspace)
    recorded.settle(workspace, plan)
    runs = recorded.runs_of(workspace, plan)
    arm = MovingArm()
    with LabelStore(workspace.labels_path) as store:
        course = EvaluationCourse(
            plan,
            [policies(speed) for speed in SPEEDS[: len(plan.policies)]],
            recorded.done(runs),
            [run.attempt for run in runs],
            recorded.labels_to(store, workspace, plan, settings.operator),
        )
        return run_session(workspace, arm, Hand(), keys(arm), settings, course=course, **more)


def typing(*keys: OperatorKey) -> Callable[[MovingArm], ScriptedKeys]:
    """Keys one after the other: that after START when the policy drives, the others when the arm stands."""

    def pressed(arm: MovingArm) -> ScriptedKeys:
        before = (None, *keys)
        return ScriptedKeys(
            *((steadily(arm, last is START), key) for last, key in zip(before, keys, strict=False))
        )

    return pressed


def steadily(arm: MovingArm, driven: bool) -> Callable[[], bool]:
    """A moment: for some commands now the policy drove the arm, or it was held still."""
    return lambda: len(arm.sent) >= STEADY and all(bool(sent[2] > 0) == driven for sent in arm.sent[-STEADY:])


def endless(arm: MovingArm) -> ScriptedKeys:
    """A person who starts and judges, attempt after attempt; every fourth does not count."""
    words = (SUCCESS, FAILURE, SUCCESS, AGAIN) * 25
    return typing(*(key for word in words for key in (START, word)))(arm)


def main() -> None:
    """See the module."""
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    workspace, rng, killed = Workspace(root).create(), random.Random(seed), 0
    for _ in range(kills):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                go_on(workspace, endless)
            os._exit(0)
        time.sleep(rng.uniform(0.1, 0.6))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status)
    go_on(workspace, endless)
    recorded.settle(workspace, PLAN)
    print(killed)


if __name__ == "__main__":
    main()
