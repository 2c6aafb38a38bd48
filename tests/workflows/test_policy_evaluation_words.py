"""What an evaluation's course says before each start, and what it counts."""

from __future__ import annotations

from dataclasses import replace

from collectors.operator_keys import OperatorKey
from collectors.telemetry import Phase
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import MovingArm, ScriptedKeys
from tests.collectors.test_collection_session import Screen
from tests.workflows.killed_evaluation import PLAN, START, STOP, SUCCESS, go_on, steadily
from workflows.policy_evaluation_course import EvaluationCourse
from workflows.policy_evaluation_plan import PlannedAttempt
from workflows.policy_evaluation_runs import results, runs_of


def test_another_task_is_said_where_it_begins() -> None:
    plan = replace(PLAN, starts=3, tasks=("stack", "sort", "sort"))
    done: list[PlannedAttempt] = []
    said = []
    for attempt in plan.attempts:
        said.append(EvaluationCourse(plan, [], done, [], lambda *_: None).words())
        done.append(attempt)
    assert [": ANOTHER TASK: sort; " in words for words in said] == [False, False, True, False, False, False]
    assert said[0] == "start 1 of 3, first of two: stack; lay out the scene as for start 1, then ENTER"
    assert said[3] == "start 2 of 3, second of two: sort; put everything back as it was, then ENTER"


def test_the_plan_is_begun_with_the_first_attempt_and_once() -> None:
    begun: list[int] = []
    course = EvaluationCourse(PLAN, [], [], [], lambda *_: None, begin=lambda: begun.append(1))
    assert course.turn() is not None and begun == []
    course.began()
    course.began()
    assert begun == [1]


def test_an_emergency_stop_counts_as_an_intervention_and_is_told(workspace: Workspace) -> None:
    one = replace(PLAN, starts=1, policies=PLAN.policies[:1])
    screen = Screen()

    def keys(arm: MovingArm) -> ScriptedKeys:
        stopped = [
            (lambda: bool(screen.shown) and screen.shown[-1].phase is Phase.STOPPED, key)
            for key in (SUCCESS, STOP)
        ]
        driven = (steadily(arm, True), OperatorKey.EMERGENCY_STOP)
        return ScriptedKeys((steadily(arm, False), START), driven, *stopped)

    go_on(workspace, keys, plan=one, telemetry=screen)
    (policy,) = results(one, runs_of(workspace, one), ["old"])["policies"]
    assert (policy["emergency_stops"], policy["interventions_per_episode"]["value"]) == (1, 1.0)
