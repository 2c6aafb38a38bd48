"""Who was evaluated in an iteration, by which steps, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

from pipeline import iteration_records as records
from pipeline.iteration_records import OTHER, Interval, PolicyRecord
from workflows.iteration_steps import IterationSteps
from workflows.loop_graph import ASKED_NEGATIVE, BASE, CANDIDATE, CHAMPION, FILTERED
from workflows.step_files import EVALUATION_FILE
from workflows.step_recipe import StepAddress
from workflows.step_store import StepResult

_ROLES = {BASE: records.BASE, CHAMPION: records.CHAMPION, CANDIDATE: records.CANDIDATE}


def evaluated_policies(steps: IterationSteps) -> dict[str, list[StepResult]]:
    """The evaluations' steps by policy, from what each was given."""
    found: dict[str, list[StepResult]] = {}
    for address in steps.addresses.get("evaluate", []):
        result = steps.store.find(address)
        if result is not None:
            found.setdefault(_policy_of(result, steps), []).append(result)
    return found


def _policy_of(evaluation: StepResult, steps: IterationSteps) -> str:
    checkpoint = str(evaluation.manifest["inputs"]["checkpoint"])
    step = StepAddress.parse(checkpoint)
    if step.name == "train_base":
        return BASE
    if step.name == "fine_tune_filtered":
        return FILTERED
    if step not in steps.addresses.get("fine_tune_recap", []):
        return CHAMPION
    asked = evaluation.manifest["parameters"].get("evaluation", {}).get("indicator")
    return ASKED_NEGATIVE if asked == "negative" else CANDIDATE


def policy_records(
    summary: Mapping[str, Any], evaluated: Mapping[str, list[StepResult]]
) -> tuple[PolicyRecord, ...]:
    """Every policy's numbers as the ledger noted them, and what the evaluations' files add."""
    found = []
    for name, numbers in summary.get("performances", {}).items():
        steps = evaluated.get(name, [])
        found.append(
            PolicyRecord(
                str(name),
                _ROLES.get(name, OTHER),
                int(numbers["attempts"]),
                int(numbers["successes"]),
                _interval(numbers["success_rate"]),
                _interval(numbers["successes_per_hour"]),
                str(steps[0].manifest["inputs"]["checkpoint"]) if steps else None,
                _interventions(steps),
            )
        )
    return tuple(found)


def _interventions(steps: Iterable[StepResult]) -> float | None:
    """A person's corrections an attempt; ``None`` for evaluations from before they were noted."""
    rows = [row for step in steps for row in json.loads((step.path / EVALUATION_FILE).read_text())]
    counts = [int(row["interventions"]) for row in rows if "interventions" in row]
    return float(mean(counts)) if counts else None


def _interval(numbers: Mapping[str, Any]) -> Interval:
    return Interval(*(float(numbers[name]) for name in ("value", "low", "high")))
