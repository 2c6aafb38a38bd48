"""A person who judges two policies is blind: what would tell them apart waits for the notes at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.workspace import Workspace
from tests.collectors.moving_arm import MovingArm, ScriptedKeys
from tests.collectors.test_collection_session import Screen
from tests.workflows.killed_evaluation import PLAN, SPEEDS, START, SUCCESS, Upwards, go_on, steadily
from workflows.policy_evaluation_runs import runs_of


def test_nothing_on_the_screen_tells_one_policy_from_the_other(workspace: Workspace) -> None:
    """Neither what it says it does nor that it is too slow; both are kept, and told at the end."""

    class Says(Upwards):
        def plan(self, observation: dict[str, Any]) -> np.ndarray:
            time.sleep(0.3)
            return super().plan(observation)

        @property
        def subtask(self) -> str:
            return f"sub-task of {self.speed}"

    def starved(arm: MovingArm) -> Any:
        """A moment: the policy has driven, and now it has no action."""
        driven: list[bool] = []

        def has_come() -> bool:
            driven.extend([True] if steadily(arm, True)() else [])
            return bool(driven) and not arm.sent[-1][2]

        return has_come

    def keys(arm: MovingArm) -> ScriptedKeys:
        attempt = [(steadily(arm, False), START), (starved(arm), SUCCESS)]
        return ScriptedKeys(
            *attempt, (steadily(arm, False), START), (starved(arm), SUCCESS), (steadily(arm, False), START)
        )

    screen = Screen()
    one = replace(PLAN, starts=1)
    summary = go_on(workspace, keys, plan=one, policies=Says, telemetry=screen)
    assert {shown.subtask for shown in screen.shown} == {None}
    assert {shown.starved for shown in screen.shown} == {0}
    assert not any("no action" in shown.message for shown in screen.shown)
    assert any("no action" in line for line in summary.problems), "the notes have it"
    said = [run.entry.info.extra["subtasks"][0]["subtask"] for run in runs_of(workspace, one)]
    assert set(said) == {f"sub-task of {speed}" for speed in SPEEDS}
