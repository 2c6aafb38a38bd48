"""The loop's history as the dots, bars and rows of the page over iterations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from labeling_app.iteration_charts import (
    BASE,
    CANDIDATE,
    CHAMPION,
    CORRECTION_COLOURS,
    SOURCE_WORDS,
    VALUE_COLOURS,
    LinePoint,
)
from pipeline import iteration_records as records
from pipeline.iteration_records import HistoryEntry, IterationRecord, IterationsDocument

Amounts = list[tuple[int, str, int]]
DECISIONS = {True: "✓ promoted", False: "kept the champion", None: "not known"}


def policy_points(iterations: Iterable[IterationRecord], attribute: str) -> list[LinePoint]:
    """``success_rate`` or ``successes_per_hour`` of base, champion and candidate."""
    points = []
    for record in iterations:
        for series, policy in (
            (BASE, record.evaluated(records.BASE)),
            (CHAMPION, record.champion_after),
            (CANDIDATE, record.evaluated(records.CANDIDATE)),
        ):
            if policy is not None:
                found, own = getattr(policy, attribute), series == CANDIDATE
                full = bool(record.promoted) or not own
                points.append(
                    LinePoint(record.n, series, found.value, found.low, found.high, full=full, joined=not own)
                )
    return points


def correction_points(iterations: Iterable[IterationRecord]) -> list[LinePoint]:
    """How often people took over, a rollout."""
    (name,) = CORRECTION_COLOURS
    return [
        LinePoint(one.n, name, one.rollouts.per_episode) for one in iterations if one.rollouts is not None
    ]


def kind_amounts(iterations: Iterable[IterationRecord]) -> Amounts:
    """Episodes by how they were recorded."""
    known = ((one.n, one.data.episodes) for one in iterations if one.data is not None)
    return [(n, kind, count) for n, episodes in known for kind, count in episodes.items()]


def label_amounts(iterations: Iterable[IterationRecord]) -> Amounts:
    """Episodes by what people say of them; disputed ones too."""
    known = ((one.n, one.data) for one in iterations if one.data is not None)
    return [
        (n, outcome, count)
        for n, data in known
        for outcome, count in {**data.outcomes, "disputed": data.disputed}.items()
    ]


def value_points(iterations: Iterable[IterationRecord]) -> list[LinePoint]:
    """How far values tell success from failure, and rise near success; full where they passed the gate."""
    auc, rank = VALUE_COLOURS
    found = [
        (one, name, value)
        for one in iterations
        if one.values is not None
        for name, value in ((auc, one.values.auc), (rank, one.values.rank_correlation))
    ]
    return [
        LinePoint(one.n, name, value, full=bool(one.values_passed))
        for one, name, value in found
        if value is not None
    ]


def positive_points(iterations: Iterable[IterationRecord]) -> list[LinePoint]:
    """Share of the marked frames of each source that are positive."""
    return [
        LinePoint(one.n, SOURCE_WORDS[source], found.positive / found.marked)
        for one in iterations
        for source, found in one.positives.items()
        if found.marked and source in SOURCE_WORDS
    ]


def threshold_rows(iterations: Iterable[IterationRecord]) -> list[dict[str, Any]]:
    """Thresholds, a column a task, newest first."""
    known = [one for one in iterations if one.thresholds]
    tasks = list(dict.fromkeys(task for one in known for task in one.thresholds))
    return [{"iteration": one.n, **{task: one.thresholds.get(task) for task in tasks}} for one in known[::-1]]


def history_rows(document: IterationsDocument) -> list[dict[str, str]]:
    """Every decision as a row of text, newest first."""
    return [_history_row(entry) for entry in document.history()]


def _history_row(entry: HistoryEntry) -> dict[str, str]:
    row = dict.fromkeys(("iteration", "when (UTC)", "decision", "succeeds", "per hour", "why"), "")
    if entry.rollback is not None:
        one = entry.rollback
        to = "the base policy" if one.iteration == 0 else f"iteration {one.iteration}"
        return {**row, "when (UTC)": _minute(one.since), "decision": f"↩ back to {to}", "why": one.reason}
    row["iteration"] = str(entry.n)
    if entry.record is None:
        return {**row, "decision": "✕ values refused", "why": "Nothing was fine-tuned on them."}
    record = entry.record
    row |= {"when (UTC)": _minute(record.recorded), "why": record.reason}
    row["decision"] = DECISIONS[record.promoted]
    candidate = record.evaluated(records.CANDIDATE)
    if candidate is not None:
        row["succeeds"] = f"{candidate.success_rate.value:.0%}"
        row["per hour"] = f"{candidate.successes_per_hour.value:.0f}"
    return row


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
