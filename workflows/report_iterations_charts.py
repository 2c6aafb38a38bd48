"""The charts of ``reports/index.html``: which figures, over which iterations, in which words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from markupsafe import Markup

from pipeline.iteration_records import (
    BASE,
    CANDIDATE,
    KINDS,
    IterationRecord,
    IterationsDocument,
    PolicyRecord,
)
from workflows.report_lines import Frame, Layer, Line, Point, line_chart, stack_chart
from workflows.report_words import number, percent

_NARROW = 440  # pixels of a chart of which three stand side by side
_SOURCES = {
    "teleop": ("teleoperation", "s-teleop"),
    "policy": ("policy", "s-policy"),
    "intervention": ("correction by a person", "s-correction"),
}
_KIND_STYLES = dict(zip(KINDS, ("s-teleop", "s-policy", "s-correction"), strict=True))
_OUTCOMES = {
    "success": "s-success",
    "failure": "s-failure",
    "exclude": "s-other",
    "disputed": "s-disputed",
    "unlabelled": "s-open",
}
_TASK_STYLES = ("s-base", "s-candidate", "s-correction", "s-champion", "s-filtered", "s-failure")


@dataclass(frozen=True)
class Shown:
    """One chart: its title, picture, what its colours mean (name, style), a caption, and whose steps."""

    title: str
    picture: Markup
    legend: tuple[tuple[str, str], ...]
    caption: str
    group: str


def iteration_charts(document: IterationsDocument) -> dict[str, list[Shown]]:
    """The charts by the section of the page that they belong to."""
    records = document.iterations
    if not records:
        return {name: [] for name in _SECTIONS}
    numbers = tuple(range(min(r.n for r in records), max(r.n for r in records) + 1))
    frame = Frame(
        numbers,
        {record.n: record.page for record in records if record.page is not None},
        tuple(
            (one.after, f"rolled back: {one.reason}")
            for one in document.champions
            if one.kind == "rollback" and numbers[0] <= one.after <= numbers[-1]
        ),
    )
    narrow = replace(frame, width=_NARROW)
    three = ("performance", "values")
    return {name: list(make(narrow if name in three else frame, records)) for name, make in _SECTIONS.items()}


def _performance(frame: Frame, records: tuple[IterationRecord, ...]) -> Iterator[Shown]:
    finders: tuple[tuple[str, str, Callable[[IterationRecord], PolicyRecord | None]], ...] = (
        ("base policy", "s-base", lambda record: record.evaluated(BASE)),
        ("champion after the iteration", "s-champion", lambda record: record.champion_after),
        ("candidate (full dot: promoted)", "s-candidate", lambda record: record.evaluated(CANDIDATE)),
    )
    for title, attribute, words, high in (
        ("Success rate", "success_rate", percent, 1.0),
        ("Successes per robot hour", "successes_per_hour", number, None),
    ):
        lines = []
        for name, style, find in finders:
            points = [
                Point(
                    record.n,
                    (interval := getattr(policy, attribute)).value,
                    interval.low,
                    interval.high,
                    style != "s-candidate" or bool(record.promoted),
                )
                for record in records
                if (policy := find(record)) is not None
            ]
            lines.append(Line(name, style, tuple(points), joined=style != "s-candidate"))
        caption = "Thin lines are 95 % intervals. All policies of an iteration ran the same starts."
        yield from _lines(frame, title, lines, words, caption, "performance", high=high)
    points = [Point(r.n, r.rollouts.per_episode) for r in records if r.rollouts is not None]
    yield from _lines(
        frame,
        "Corrections per rollout",
        [Line("times that a person took over", "s-correction", tuple(points))],
        lambda value: number(value, 1),
        "Of the rollouts that came in with the iteration. It should fall as policies get better.",
        "rollouts",
    )


def _data(frame: Frame, records: tuple[IterationRecord, ...]) -> Iterator[Shown]:
    known = {record.n: record.data for record in records if record.data is not None}
    if not known:
        return
    kinds = [
        Layer(kind, _KIND_STYLES[kind], {n: data.episodes.get(kind, 0) for n, data in known.items()})
        for kind in KINDS
    ]
    outcomes = [
        Layer(
            outcome,
            style,
            {n: {**data.outcomes, "disputed": data.disputed}.get(outcome, 0) for n, data in known.items()},
        )
        for outcome, style in _OUTCOMES.items()
    ]
    for title, layers, caption in (
        (
            "Episodes, by how they were recorded",
            kinds,
            "All that an iteration learned from, not only new ones.",
        ),
        ("Labels", outcomes, "Disputed and unlabelled episodes never count as failures."),
    ):
        used = [layer for layer in layers if any(layer.amounts.values())]
        legend = tuple((layer.name, layer.style) for layer in used)
        yield Shown(title, stack_chart(frame, used, number), legend, caption, "data")


def _values(frame: Frame, records: tuple[IterationRecord, ...]) -> Iterator[Shown]:
    for title, attribute, digits, high, caption in (
        (
            "Tells success from failure (AUC)",
            "auc",
            2,
            1.0,
            "At equal ages; 1 is always, 0.5 is guessing.",
        ),
        (
            "Rises as success comes near (rank correlation)",
            "rank_correlation",
            2,
            1.0,
            "Within successes; 1 is always, 0 is no relation.",
        ),
        (
            "Off by how much (expected calibration error)",
            "calibration_error",
            3,
            None,
            "In units of the value, which is −1 to 0; smaller is better.",
        ),
    ):
        points = [
            Point(record.n, found, filled=bool(record.values_passed))
            for record in records
            if record.values is not None and (found := getattr(record.values, attribute)) is not None
        ]
        line = Line("values (full dot: passed the gate)", "s-candidate", tuple(points))
        yield from _lines(frame, title, [line], partial(number, digits=digits), caption, "values", high=high)


def _marks(frame: Frame, records: tuple[IterationRecord, ...]) -> Iterator[Shown]:
    tasks = list(dict.fromkeys(task for record in records for task in record.thresholds))
    lines = [
        Line(
            task,
            _TASK_STYLES[place % len(_TASK_STYLES)],
            tuple(Point(r.n, r.thresholds[task]) for r in records if task in r.thresholds),
        )
        for place, task in enumerate(tasks)
    ]
    caption = "The advantage above which a frame is marked positive, by task."
    yield from _lines(frame, "Thresholds", lines, lambda v: number(v, 3), caption, "thresholds", low=None)
    shares = []
    for source, (name, style) in _SOURCES.items():
        points = [
            Point(record.n, found.positive / found.marked)
            for record in records
            if (found := record.positives.get(source)) is not None and found.marked
        ]
        shares.append(Line(name, style, tuple(points)))
    caption = "Of the marked frames of each source. A person's corrections are positive by rule."
    yield from _lines(frame, "Frames marked positive", shares, percent, caption, "positives", high=1.0)


def _lines(
    frame: Frame,
    title: str,
    lines: list[Line],
    words: Callable[[float], str],
    caption: str,
    group: str,
    *,
    low: float | None = 0.0,
    high: float | None = None,
) -> Iterator[Shown]:
    """The chart, unless there is nothing to draw."""
    drawn = [line for line in lines if line.points]
    if drawn:
        legend = tuple((line.name, line.style) for line in drawn)
        yield Shown(title, line_chart(frame, drawn, words, low=low, high=high), legend, caption, group)


_SECTIONS: dict[str, Callable[[Frame, tuple[IterationRecord, ...]], Iterator[Shown]]] = {
    "performance": _performance,
    "data": _data,
    "values": _values,
    "marks": _marks,
}
