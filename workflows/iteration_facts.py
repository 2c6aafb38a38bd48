"""One iteration's figures, read from the ledger and from what its steps left; each with its steps.

Every group of figures is read by itself: what is damaged, or was freed by ``recap gc``, becomes a sentence
among the record's problems, and the other figures are told all the same. Figures that an earlier record has
are kept where their steps are gone since.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from pipeline.errors import InputError
from pipeline.iteration_file import VERSION
from pipeline.iteration_records import IterationRecord, PolicyRecord, ValuesRecord
from workflows.iteration_data import EpisodeSources, data_record, frame_facts, new_rows, rollout_record
from workflows.iteration_evaluations import evaluated_policies, policy_records
from workflows.iteration_steps import GoneError, IterationSteps
from workflows.ledger import Iteration
from workflows.loop_graph import BASE, CHAMPION
from workflows.step_files import JUDGEMENT, QUALITY_FILE, THRESHOLDS_FILE
from workflows.step_store import StepResult

_FAULTS = (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile)


@dataclass
class _Reading:
    """Reads groups of figures one by one, and notes which could not be had, and which are ``gone``."""

    problems: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def get[T](self, what: str, read: Callable[[], T], otherwise: T) -> T:
        """What ``read`` returns; ``otherwise``, and a sentence on ``what``, where it fails."""
        try:
            return read()
        except _FAULTS as error:
            noted = self.gone if isinstance(error, GoneError) else self.problems
            noted.append(f"{what}: {_words(error)}")
            return otherwise


def record_digest(iteration: Iteration, steps: IterationSteps, before: IterationSteps | None) -> str:
    """Stands for all that :func:`iteration_record` reads: steps are what their keys say."""
    sources = [
        VERSION,
        iteration.n,
        iteration.candidate,
        iteration.recorded,
        iteration.summary,
        sorted(steps.named(*steps.addresses)),
        before.named("advantages") if before is not None else [],
    ]
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()


def iteration_record(
    iteration: Iteration,
    steps: IterationSteps,
    before: IterationSteps | None,
    earlier: IterationRecord | None,
    digest: str,
) -> IterationRecord:
    """All figures of one iteration. ``before`` are the steps of the one before it, ``earlier`` what an older
    record says of this one."""
    reading, summary = _Reading(), iteration.summary
    decision = summary.get("decision")
    decision = decision if isinstance(decision, dict) else {}
    nobody: dict[str, list[StepResult]] = {}
    evaluated = reading.get("who was evaluated", lambda: evaluated_policies(steps), nobody)
    none: tuple[PolicyRecord, ...] = ()
    policies = reading.get("the evaluation", lambda: policy_records(summary, evaluated), none)
    facts = reading.get("frames", lambda: frame_facts(steps.the("advantages").path), None)
    record = IterationRecord(
        n=iteration.n,
        recorded=iteration.recorded,
        candidate=next(iter(steps.named("fine_tune_recap")), iteration.candidate),
        reference=CHAMPION if any(policy.name == CHAMPION for policy in policies) else BASE,
        promoted=bool(summary["promoted"]) if "promoted" in summary else None,
        reason=str(summary.get("reason", "")),
        rule=str(decision.get("rule", "")),
        looks=_rows(decision.get("looks")),
        guards=_rows(decision.get("guards")),
        values_passed=summary.get("values_passed"),
        policies=policies,
        values=reading.get("value quality", lambda: _values(steps), None),
        thresholds=reading.get("thresholds", lambda: _thresholds(steps), {}),
        positives=facts.positives if facts is not None else {},
        sources=_sources(steps, evaluated),
        digest=digest,
    )
    record = _with_data(record, steps, before, facts.sources if facts else {}, reading)
    if facts is None and earlier is not None and earlier.data is not None:
        # Frames say who was corrected: the earlier record knows more.
        record = replace(record, data=None)
    return _completed(record, reading, earlier)


def _with_data(
    record: IterationRecord,
    steps: IterationSteps,
    before: IterationSteps | None,
    sources: Mapping[str, EpisodeSources],
    reading: _Reading,
) -> IterationRecord:
    snapshot = reading.get("episodes and labels", lambda: steps.labels, None)
    if snapshot is None:
        return record
    previous = reading.get("what is new", lambda: before.labels, None) if before is not None else None
    known = before is None or previous is not None
    rollouts = rollout_record(new_rows(snapshot, previous), sources) if known else None
    return replace(record, data=data_record(snapshot, previous, sources, known=known), rollouts=rollouts)


def _completed(
    record: IterationRecord, reading: _Reading, earlier: IterationRecord | None
) -> IterationRecord:
    """With the figures that an earlier record of the same candidate has and this one lacks."""
    kept: dict[str, Any] = {}
    if earlier is not None and earlier.candidate == record.candidate:
        kept = {
            name: getattr(earlier, name)
            for name in ("policies", "data", "rollouts", "values", "thresholds", "positives")
            if not getattr(record, name) and getattr(earlier, name)
        }
    problems = [*reading.problems, *([] if kept else reading.gone)]
    return replace(record, **kept, problems=tuple(problems))


def _values(steps: IterationSteps) -> ValuesRecord:
    quality = json.loads((steps.the("advantages").path / QUALITY_FILE).read_text())
    same_age = [auc for auc in quality.get("auc_same_age", {}).values() if auc is not None]
    return ValuesRecord(
        mean(same_age) if same_age else None,
        quality.get("rank_correlation"),
        quality.get("expected_calibration_error"),
    )


def _thresholds(steps: IterationSteps) -> dict[str, float]:
    found = json.loads((steps.the("advantages").path / THRESHOLDS_FILE).read_text())
    return {str(task): float(value) for task, value in found.items()}


def _sources(
    steps: IterationSteps, evaluated: Mapping[str, Iterable[StepResult]]
) -> dict[str, tuple[str, ...]]:
    advantages = steps.named("advantages")
    groups = {
        "performance": steps.named("evaluate"),
        "values": steps.named("train_value", "score_values", "advantages", JUDGEMENT),
        "thresholds": advantages,
        "positives": advantages,
        "rollouts": advantages,
        "data": advantages,
        "training": steps.named("fine_tune_recap", "fine_tune_filtered", "train_value"),
    }
    for name, results in evaluated.items():
        groups[f"performance of {name}"] = tuple(f"{one.name}/{one.key}" for one in results)
    return {name: addresses for name, addresses in groups.items() if addresses}


def _rows(given: Any) -> tuple[dict[str, Any], ...]:
    """Plain numbers and words by name; what is nested is said as JSON."""
    if not isinstance(given, list):
        return ()
    return tuple(
        {
            str(name): value if isinstance(value, str | bool | int | float | None) else json.dumps(value)
            for name, value in row.items()
        }
        for row in given
        if isinstance(row, dict)
    )


def _words(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
