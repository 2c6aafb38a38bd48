"""What ``reports/index.html`` shows: the sentences, tiles, charts and rows, from the document alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.iteration_records import (
    CANDIDATE,
    HistoryEntry,
    IterationRecord,
    IterationsDocument,
    PolicyRecord,
    Standing,
)
from workflows.report_iterations_charts import iteration_charts
from workflows.report_page import write_page
from workflows.report_words import Headline, Tile, number, percent, rate_digits, signed

TEMPLATE = "report_iterations.html"
SHOWN_EVENTS = 12
"""Rows of the history, and iterations of the table of what came in, that are shown without a click."""


def write_iterations_page(document: IterationsDocument, stamp: str, out: Path) -> Path:
    """Draws the page to ``out``; ``stamp`` is kept in it, for who asks whether it is up to date."""
    records = document.iterations
    standing = document.standing
    context = {
        "document": document,
        "records": records,
        "stamp": stamp,
        "headline": _headline(document, standing),
        "tiles": list(_tiles(document, standing)),
        "charts": iteration_charts(document),
        "history": [_event(entry) for entry in document.history()],
        "shown_events": SHOWN_EVENTS,
        "incoming": [(record, incoming_words(record)) for record in reversed(records)],
        "number": number,
        "percent": percent,
    }
    return write_page(TEMPLATE, context, out)


def _headline(document: IterationsDocument, standing: Standing | None) -> Headline:
    champion = document.champion
    count = len(document.iterations)
    turns = "1 iteration" if count == 1 else f"{count} iterations"
    if champion is None or not count:
        return Headline("No iteration yet.", "'recap improve' makes the first one.", "unclear")
    if champion.iteration == 0:
        kept = "its candidate was not better" if count == 1 else f"none of {count} candidates holds its place"
        detail = f"After {turns} {kept}." if champion.kind != "rollback" else "A person went back to it."
        return Headline("The base policy still drives.", detail, "unclear")
    name = f"the policy of iteration {champion.iteration}"
    if standing is None:
        return Headline(f"{name.capitalize()} drives.", "No iteration has evaluated it yet.", "unclear")
    now, base = standing.champion, standing.base
    digits = rate_digits(min(now.successes_per_hour.value, base.successes_per_hour.value))
    detail = (
        f"{number(now.successes_per_hour.value, digits)} successes per hour against "
        f"{number(base.successes_per_hour.value, digits)}, on the same starts, in iteration "
        f"{standing.iteration}; {turns} so far."
    )
    sentence = (
        f"{name.capitalize()} drives: it succeeds in {percent(now.success_rate.value)} of attempts, "
        f"the base policy in {percent(base.success_rate.value)}."
    )
    return Headline(
        sentence, detail, "good" if now.success_rate.value > base.success_rate.value else "unclear"
    )


def _tiles(document: IterationsDocument, standing: Standing | None) -> Iterator[Tile]:
    if standing is not None and standing.champion != standing.base:
        now, base = standing.champion, standing.base
        gain = now.success_rate.value - base.success_rate.value
        yield Tile(
            "Success rate, base to champion",
            percent(base.success_rate.value),
            percent(now.success_rate.value),
            f"{signed(100 * gain)} points",
            f"of the champion {number(100 * now.success_rate.low)} to {number(100 * now.success_rate.high)}",
            "good" if now.success_rate.low > base.success_rate.high else "unclear",
        )
        rate, before = now.successes_per_hour, base.successes_per_hour
        digits = rate_digits(min(rate.value, before.value))
        yield Tile(
            "Successes per hour, base to champion",
            number(before.value, digits),
            number(rate.value, digits),
            f"{signed(rate.value - before.value, digits)} per hour",
            f"of the champion {number(rate.low, digits)} to {number(rate.high, digits)}",
            "good" if rate.low > before.high else "unclear",
        )
    totals = [sum(r.data.episodes.values()) for r in document.iterations if r.data is not None]
    if totals:
        before_ = number(totals[0]) if len(totals) > 1 else None
        yield Tile("Episodes learned from", before_, number(totals[-1]), "", "", "unclear")
    helped = [r.rollouts.per_episode for r in document.iterations if r.rollouts is not None]
    if helped:
        first = number(helped[0], 1) if len(helped) > 1 else None
        yield Tile("Corrections per rollout", first, number(helped[-1], 1), "", "", "unclear")


@dataclass(frozen=True)
class Event:
    """One row of the history: an iteration, a rollback, or a turn that ended at its gate."""

    name: str
    when: str
    tone: str
    badge: str
    reason: str
    candidate: PolicyRecord | None = None
    page: str | None = None
    problems: tuple[str, ...] = ()


def _event(entry: HistoryEntry) -> Event:
    """A row of the history in words."""
    if entry.rollback is not None:
        one = entry.rollback
        to = "the base policy" if one.iteration == 0 else f"iteration {one.iteration}"
        return Event("rollback", one.since, "no", f"↩ back to {to}", one.reason)
    record = entry.record
    if record is None:
        reason = "Values were not good enough to learn from; nothing was fine-tuned on them."
        name = f"turn {entry.n}, stopped"
        return Event(name, entry.recorded, "stop", "✕ values refused", reason, page=entry.page)
    tone, badge = ("yes", "✓ promoted") if record.promoted else ("no", "kept the champion")
    if record.promoted is None:
        tone, badge = "stop", "not known"
    return Event(
        f"iteration {record.n}",
        record.recorded,
        tone,
        badge,
        record.reason,
        record.evaluated(CANDIDATE),
        record.page,
        record.problems,
    )


def incoming_words(record: IterationRecord) -> dict[str, Any]:
    """What came in with an iteration, in words for the table: episodes by kind, who recorded and labelled."""
    data = record.data
    if data is None:
        return {}
    by_kind: dict[str, int] = {}
    operators: dict[str, int] = {}
    for group in data.incoming or ():
        by_kind[group.kind] = by_kind.get(group.kind, 0) + group.episodes
        operators[group.operator] = operators.get(group.operator, 0) + group.episodes
    return {
        "episodes": "not known" if data.incoming is None else _list(by_kind) or "none",
        "operators": _list(operators),
        "labels": "not known" if data.new_labels is None else number(data.new_labels),
        "annotators": _list(data.annotators),
        "disputed": data.disputed,
        "confirmed": data.confirmed,
    }


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number(count)}" for name, count in sorted(counts.items(), key=lambda p: -p[1]))
