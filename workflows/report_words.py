"""The words and numbers of the report's first screen: the headline, the tiles and the decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflows.comparison import (
    LARGEST_SUCCESS_LOSS,
    SIGNIFICANCE,
    Estimate,
    PairedDifference,
    Performance,
)

NBSP = "\u00a0"
MINUS = "\u2212"


@dataclass(frozen=True)
class Tile:
    """One big number: ``before`` → ``after``, and whether the change is ``good``, ``bad`` or ``unclear``."""

    title: str
    before: str | None
    after: str
    change: str
    interval: str
    tone: str


@dataclass(frozen=True)
class Headline:
    """The sentence that an operator reads, and the second one that says what it rests on."""

    sentence: str
    detail: str
    tone: str


def tone(difference: PairedDifference) -> str:
    """What became of the throughput, by the test that decides on promotion.

    ``good`` where that says better beyond chance; ``bad`` where the whole 95 % interval lies below zero; else
    ``unclear``.
    """
    if difference.better:
        return "good"
    return "bad" if difference.successes_per_hour.high < 0 else "unclear"


def is_narrow(difference: PairedDifference) -> bool:
    """Whether it is better by the one-sided test, though its two-sided 95 % interval touches zero."""
    return difference.better and difference.successes_per_hour.low <= 0


def _interval_tone(difference: Estimate) -> str:
    """``good`` or ``bad`` where the whole 95 % interval lies on one side of zero, else ``unclear``."""
    if difference.low > 0:
        return "good"
    return "bad" if difference.high < 0 else "unclear"


def number(value: float, digits: int = 0) -> str:
    """A number with a proper minus sign; never "−0"; "–" where there is none."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:,.{digits}f}".replace(",", "\u202f")
    return text.lstrip("-") if float(f"{value:.{digits}f}") == 0 else text.replace("-", MINUS)


def signed(value: float, digits: int = 0) -> str:
    """A change: always with its sign."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(f"{value:.{digits}f}") != 0 else text


def percent(value: float) -> str:
    """A share (0–1) in per cent."""
    return f"{number(100 * value)}{NBSP}%"


def rate_digits(value: float) -> int:
    """Decimals that keep two figures of a rate: a slow robot's 3.4 an hour must not become 3."""
    return 0 if abs(value) >= 20 else 1


def estimate_text(estimate: Estimate, *, share: bool = False) -> str:
    """``71 % (62 to 79)`` for a share, ``312 (250 to 371)`` otherwise."""
    if share:
        return f"{percent(estimate.value)} ({number(100 * estimate.low)} to {number(100 * estimate.high)})"
    digits = rate_digits(estimate.value)
    low, high = number(estimate.low, digits), number(estimate.high, digits)
    return f"{number(estimate.value, digits)} ({low} to {high})"


def p_text(p_value: float) -> str:
    """``p < 0.001`` or ``p = 0.03``; rounding never hides on which side of :data:`SIGNIFICANCE` it lies."""
    if p_value < 0.001:
        return f"p{NBSP}<{NBSP}0.001"
    text = f"{p_value:.2g}"
    sign = "<" if p_value < SIGNIFICANCE <= float(text) else "="
    return f"p{NBSP}{sign}{NBSP}{text}"


def duration(seconds: float | None) -> str:
    """``48 s``, ``12 min 5 s`` or ``3 h 12 min``; "–" where there is none."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{number(seconds, 1)} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def headline(
    performances: Mapping[str, Performance],
    candidate: str,
    reference: str,
    difference: PairedDifference | None,
    held_back: str | None = None,
) -> Headline:
    """What happened, in one sentence that claims what the decision's own test allows, and no more.

    Where only the one-sided test speaks for the candidate, it says how sure that is; where the candidate is
    faster but a guard rail holds it back, it says both: ``held_back`` is what :func:`guard_that_holds` says
    of the decision, ``None`` where there is none to ask and only the loss of success counts.
    """
    new, old = performances[candidate], performances[reference]
    per_hour = new.successes_per_hour.value
    before = old.successes_per_hour.value
    digits = rate_digits(min(per_hour, before))
    shown, shown_before = number(per_hour, digits), number(before, digits)
    mood = tone(difference) if difference is not None else "unclear"
    chance = narrow_text(difference)
    lost = _lost_points(difference) if held_back is None else ""
    if mood == "good" and held_back:
        sentence = (
            f"{candidate} is faster than {reference}, but a guard rail holds it back: {shown} successes per "
            f"hour against {shown_before}{chance}, but {held_back}."
        )
        mood = "unclear"
    elif mood == "good" and lost:
        sentence = (
            f"{candidate} is faster but less reliable than {reference}: {shown} successes per hour against "
            f"{shown_before}{chance}, but {lost} points fewer attempts succeed."
        )
        mood = "unclear"
    elif mood == "good" and before > 0 and chance:
        sentence = (
            f"{candidate} gets more done than {reference}{chance}: "
            f"{shown} successes per hour, up from {shown_before}."
        )
    elif mood == "good" and before > 0:
        sentence = (
            f"{candidate} gets {per_hour / before:.1f}× as much done as {reference}: "
            f"{shown} successes per hour, up from {shown_before}."
        )
    elif mood == "good":
        sentence = f"{candidate} succeeds {shown} times per hour, where {reference} never did{chance}."
    elif mood == "bad":
        sentence = (
            f"{candidate} gets less done than {reference}: "
            f"{shown} successes per hour, down from {shown_before}."
        )
    else:
        sentence = (
            f"No clear difference yet: {candidate} made {shown} successes per hour, "
            f"{reference} made {shown_before}."
        )
    detail = (
        f"{new.successes} of {new.attempts} attempts succeeded; with {reference}, "
        f"{old.successes} of {old.attempts}."
    )
    return Headline(sentence, detail, mood)


def narrow_text(difference: PairedDifference | None) -> str:
    """How sure "better" is, where it is only just so; else nothing."""
    if difference is None or not is_narrow(difference):
        return ""
    return f" (a little surer than chance: {p_text(difference.p_value)})"


def guard_that_holds(promoted: bool, guards: Sequence[Mapping[str, Any]]) -> str:
    """The first guard rail that stands in the way of a candidate, in words; nothing where none does."""
    if promoted:
        return ""
    broken = [g for g in guards if g["verdict"] == "failed" or (g["strict"] and g["verdict"] == "open")]
    return guard_words(broken[0]) if broken else ""


def guard_words(guard: Mapping[str, Any]) -> str:
    """How much worse or better the candidate was by a guard rail: ``8 points fewer attempts succeed``."""
    worse, about = float(guard["worse"]), guard["name"]
    amount, more = number(abs(worse)), worse > 0
    if guard["unit"] != "points":
        return f"{amount} {'more' if more else 'fewer'} {guard['unit']}"
    said = f"{amount} points {'fewer' if more else 'more'} attempts succeed"
    return said if about == "success rate" else f"{said} at “{about}”"


def _lost_points(difference: PairedDifference | None) -> str:
    """The loss of success rate in points, where it is too large to be promoted; else nothing."""
    if difference is None or -difference.success_rate.value <= LARGEST_SUCCESS_LOSS:
        return ""
    return number(-100 * difference.success_rate.value)


def tiles(
    performances: Mapping[str, Performance],
    candidate: str,
    reference: str,
    differences: Mapping[str, PairedDifference],
) -> list[Tile]:
    """The reference's two numbers first, then throughput against every other policy compared with."""
    new, old = performances[candidate], performances[reference]
    found = differences.get(f"{candidate} vs {reference}")
    shown = [_success_tile(new, old, reference, found), _throughput_tile(new, old, reference, found)]
    for name, difference in differences.items():
        other = name.removeprefix(f"{candidate} vs ")
        # "RECAP, asked for negative" is the candidate itself: beating it is no improvement.
        asked = other.startswith(f"{candidate},")
        if other not in (reference, name) and other in performances and not asked:
            shown.append(_throughput_tile(new, performances[other], other, difference))
    return shown


def _success_tile(
    new: Performance, old: Performance, other: str, difference: PairedDifference | None
) -> Tile:
    change = interval = ""
    if difference is not None:
        d = difference.success_rate
        change = f"{signed(100 * d.value)} points"
        interval = f"{signed(100 * d.low)} to {signed(100 * d.high)}"
    return Tile(
        f"Success rate, against {other}",
        percent(old.success_rate.value),
        percent(new.success_rate.value),
        change,
        interval,
        _interval_tone(difference.success_rate) if difference is not None else "unclear",
    )


def _throughput_tile(
    new: Performance, old: Performance, other: str, difference: PairedDifference | None
) -> Tile:
    before, after = old.successes_per_hour.value, new.successes_per_hour.value
    digits = rate_digits(min(before, after))
    change = interval = ""
    if difference is not None:
        d = difference.successes_per_hour
        change = f"{signed(d.value, digits)} per hour"
        interval = f"{signed(d.low, digits)} to {signed(d.high, digits)}"
    return Tile(
        f"Successes per hour, against {other}",
        number(before, digits),
        number(after, digits),
        change,
        interval,
        tone(difference) if difference is not None else "unclear",
    )
