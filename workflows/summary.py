"""What a turn of the loop says at its end: what improved, where the report is, what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workflows.comparison import Estimate, Performance
from workflows.improvement import TurnResult
from workflows.ledger import Champion
from workflows.loop_graph import ASKED_NEGATIVE, CANDIDATE, FILTERED
from workflows.report_words import narrow_text, tone
from workflows.value_gate import GateClosed


def turn_summary(result: TurnResult, workspace: Path) -> list[str]:
    """The lines to print after a turn."""
    lines = ["", *performance_table(result.performances), ""]
    lines += [*_values(result), ""]
    lines += [
        f"Iteration {result.iteration}: {_sentence(result)}",
        f"Decision: {_decision(result)}.",
        *_decided(result),
        *_against_filtered(result),
        *_indicator_sentence(result),
        "",
    ]
    lines += [
        f"Report:              {result.report}",
        f"Conditioned dataset: {result.dataset}",
        f"Checkpoint:          {result.checkpoint}",
        *_history(result),
        "",
        "Next:",
        *_next_commands(workspace),
    ]
    return lines


def gate_lines(closed: GateClosed) -> list[str]:
    """The lines to print where the gate closed."""
    return ["", *closed.report.words(), "", f"Report: {closed.page}"]


def _values(result: TurnResult) -> Iterator[str]:
    """The gate's headline, what failed or wants a look, and why the turn went on if it failed."""
    report, shown = result.gate.report, ("fail", "warn")
    yield report.words()[0]
    yield from report.words()[1 : 1 + sum(check.verdict in shown for check in report.checks)]
    if result.gate.note:
        yield result.gate.note


def performance_table(performances: dict[str, Performance]) -> Iterator[str]:
    """A line a policy: success rate and successes per hour with their 95 % intervals."""
    width = max(len(name) for name in performances)
    yield f"{'':{width}}  {'success rate':22}  successes per hour"
    for name, found in performances.items():
        rate = _interval(found.success_rate, 100, " %")
        yield f"{name:{width}}  {rate:22}  {_interval(found.successes_per_hour, 1, '')}"


def _interval(estimate: Estimate, scale: float, unit: str) -> str:
    value, low, high = (scale * number for number in (estimate.value, estimate.low, estimate.high))
    return f"{value:.0f}{unit} [{low:.0f}, {high:.0f}]"


def _sentence(result: TurnResult) -> str:
    candidate = result.performances[CANDIDATE].successes_per_hour.value
    reference = result.performances[result.reference].successes_per_hour.value
    if reference <= 0:
        return f"{CANDIDATE} makes {candidate:.0f} successes per hour where {result.reference} makes none."
    change = candidate / reference - 1
    word = "more" if change >= 0 else "fewer"
    return (
        f"{CANDIDATE} makes {abs(change):.0%} {word} successes per hour than {result.reference} "
        f"({candidate:.0f} against {reference:.0f})."
    )


def _history(result: TurnResult) -> Iterator[str]:
    if result.history is not None:
        yield f"All iterations:      {result.history}"
    elif result.history_fault:
        yield f"The page over all iterations could not be written: {result.history_fault}"


def _decision(result: TurnResult) -> str:
    since = _since(result)
    return f"{result.decision.reason}{since}" if result.stands is None else result.stands.words(since)


def _since(result: TurnResult) -> str:
    """What became of a promotion, where the turn is repeated and its candidate is champion no more."""
    champion = result.champion
    if not result.decision.promoted or champion is None or champion.key == result.candidate:
        return ""
    happened = "rolled back since" if champion.kind == "rollback" else "replaced since"
    return f"; {happened}, the champion is {_of(champion)}"


def _decided(result: TurnResult) -> Iterator[str]:
    """The looks that the decision took, a line each, and a line on the guard rails."""
    looks, guards = result.decision.looks, result.decision.guards
    for look in looks if len(looks) > 1 else []:
        yield (
            f"  after {look['starts']} starts: {look['difference']:+.0f} per hour, {_p(look['p'])} "
            f"({_bound(look['bound'])}): {look['verdict']}"
        )
    if guards:
        said = (f"{guard['name']} {guard['verdict']} ({_worse(guard)})" for guard in guards)
        yield f"Guard rails: {', '.join(said)}."


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _bound(value: float) -> str:
    return f"counts up to {value:.4f}" if value else "none would count"


def _worse(guard: Mapping[str, Any]) -> str:
    """``18 points better`` or ``3 more in 100 attempts``."""
    worse = float(guard["worse"])
    if abs(worse) < 0.5:
        return "no difference"
    if guard["unit"] == "points":
        return f"{abs(worse):.0f} points {'worse' if worse > 0 else 'better'}"
    return f"{abs(worse):.0f} {'more' if worse > 0 else 'fewer'} in 100 attempts"


def _of(champion: Champion) -> str:
    return "the base policy" if champion.iteration == 0 else f"that of {champion.origin}"


def _against_filtered(result: TurnResult) -> Iterator[str]:
    if FILTERED not in result.against:
        return
    difference = result.against[FILTERED]
    gap = difference.successes_per_hour
    words = {"good": "more than", "bad": "fewer than", "unclear": "not clearly different from"}
    verdict, chance = words[tone(difference)], narrow_text(difference)
    compared = f"Against {FILTERED}, on the same starts: {_interval(gap, 1, '')} per hour"
    yield f"{compared}, {verdict} {FILTERED}{chance}."


def _indicator_sentence(result: TurnResult) -> Iterator[str]:
    if ASKED_NEGATIVE in result.against:
        gap = result.against[ASKED_NEGATIVE].successes_per_hour
        yield (
            'Asked for "Advantage: positive" rather than "negative" it makes '
            f"{_interval(gap, 1, '')} successes per hour more."
        )


def _next_commands(workspace: Path) -> Iterator[str]:
    at = f"--workspace {shlex.quote(str(workspace))}"
    yield f"  recap status {at}     what there is and what waits for people"
    yield f"  recap label {at}      look at the episodes and label them yourself"
    yield f"  recap rollout {at}    let the champion drive, supervised; then: recap improve {at}"
