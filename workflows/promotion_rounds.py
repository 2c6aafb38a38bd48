"""Evaluates round after round until it is decided who is champion."""

from __future__ import annotations

from collections.abc import Mapping

from workflows.comparison import Attempt
from workflows.evaluation import read_attempts
from workflows.evaluation_graph import CANDIDATE, EvaluationGraph, TurnSteps
from workflows.promotion import Verdict, judge
from workflows.report_graph import Decision
from workflows.settings import LoopSettings
from workflows.step_store import StepResult
from workflows.steps import StepRunner


def evaluate_until_decided(
    runner: StepRunner,
    graph: EvaluationGraph,
    turn: TurnSteps,
    reference: str,
    stands: Decision | None = None,
) -> tuple[dict[str, StepResult], Decision]:
    """Runs the steps of ``turn``, its evaluations round after round; results by key, and the decision.

    A round is asked for where the rounds before it have left the decision open; none where a decision
    ``stands`` already.
    """
    steps = turn.all()
    results: dict[str, StepResult] = {}
    while True:
        results |= {step.key: done for step, done in zip(steps, runner.run_all(steps), strict=True)}
        if stands is not None:
            return results, stands
        verdict = judged(graph.settings, attempts_of(turn, results), reference)
        if not verdict.is_open:
            return results, verdict.decision()
        steps = graph.add_round(turn)


def judged(settings: LoopSettings, attempts: Mapping[str, list[Attempt]], reference: str) -> Verdict:
    """What these attempts say about promoting the candidate: yes, no, or that more starts are needed."""
    return judge(
        attempts[CANDIDATE], attempts[reference], reference, settings.evaluation_starts, settings.promotion
    )


def attempts_of(turn: TurnSteps, results: Mapping[str, StepResult]) -> dict[str, list[Attempt]]:
    """What each policy did on the starts, from the turn's finished steps by key."""
    return {
        name: read_attempts(*(results[part.key].path for part in parts))
        for name, parts in turn.evaluations.items()
    }
