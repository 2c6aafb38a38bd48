"""Charts over iterations: lines with their intervals, and stacked bars, in the app's colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import altair as alt

from labeling_app.charts import OUTCOME_COLOURS
from labeling_app.driving import DRIVERS
from pipeline.episode import Source
from pipeline.iteration_records import CORRECTED, DEMONSTRATION, ROLLOUT

_SOURCE_COLOURS = {source: f"#{bytes(driver.rgb).hex()}" for source, driver in DRIVERS.items()}
KIND_COLOURS = {
    DEMONSTRATION: _SOURCE_COLOURS[Source.TELEOP],
    ROLLOUT: _SOURCE_COLOURS[Source.POLICY],
    CORRECTED: _SOURCE_COLOURS[Source.INTERVENTION],
}
SOURCE_WORDS = {source.name.lower(): driver.words for source, driver in DRIVERS.items()}
SOURCE_COLOURS = {DRIVERS[source].words: colour for source, colour in _SOURCE_COLOURS.items()}
BASE, CHAMPION, CANDIDATE = "base policy", "champion after it", "candidate (full: promoted)"
POLICY_COLOURS = {BASE: "#868e96", CHAMPION: "#2f9e44", CANDIDATE: "#1c7ed6"}
LABEL_COLOURS = OUTCOME_COLOURS
CORRECTION_COLOURS = {"times that a person took over": KIND_COLOURS[CORRECTED]}
VALUE_COLOURS = {"success or failure (AUC)": "#1c7ed6", "nearness (rank correlation)": "#e8590c"}


@dataclass(frozen=True)
class LinePoint:
    """One dot: its iteration, series, value, and the ends of its interval where it has one.

    ``full`` as it is a full dot; where it is not ``joined``, no line leads to it.
    """

    iteration: int
    series: str
    value: float
    low: float | None = None
    high: float | None = None
    full: bool = True
    joined: bool = True


def legend(colours: Mapping[str, str], drawn: Iterable[str]) -> str:
    """What the colours mean, as HTML; ``colours`` are this module's own, no text that people typed."""
    names = set(drawn)
    shown = ((name, f"<span style='color:{colour}'>■</span>") for name, colour in colours.items())
    words = (f"{square} {name}" for name, square in shown if name in names)
    return " ".join(f"<span style='margin-right:1rem;white-space:nowrap'>{word}</span>" for word in words)


def line_chart(
    points: Sequence[LinePoint], colours: Mapping[str, str], *, percent: bool = False, full: bool = False
) -> alt.LayerChart:
    """Lines over iterations in ``colours`` by series; those of no colour are not drawn.

    ``percent``: values are shares; ``full``: the axis goes from 0 to 1 whatever the values.
    """
    rows = [vars(point) for point in points if point.series in colours]
    form = ".0%" if percent else ".3~g"
    scale = alt.Scale(domain=[0, 1]) if full else alt.Scale(zero=True)
    y = alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(format=form, tickCount=5))
    numbers = (alt.Tooltip(f"{name}:Q", format=form) for name in ("value", "low", "high"))
    x = _iterations([point.iteration for point in points])
    data = alt.Chart(alt.Data(values=rows)).encode(
        x=x, tooltip=[alt.Tooltip("iteration:Q"), alt.Tooltip("series:N"), *numbers]
    )
    colour = _colour(colours)
    whiskers = (
        data.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=1.5, opacity=0.5)
        .encode(y=alt.Y("low:Q", title=None, scale=scale), y2="high:Q", color=colour)
    )
    lines = data.transform_filter("datum.joined").mark_line(strokeWidth=2.2).encode(y=y, color=colour)
    dots = data.mark_point(size=48, strokeWidth=1.8).encode(
        y=y,
        stroke=alt.Stroke("series:N", scale=colour["scale"], legend=None),
        fill=alt.Fill("series:N", scale=colour["scale"], legend=None),
        fillOpacity=alt.condition("datum.full", alt.value(1), alt.value(0)),
    )
    return alt.layer(whiskers, lines, dots)  # type: ignore[return-value]  # no facets in it


def stack_chart(amounts: Sequence[tuple[int, str, int]], colours: Mapping[str, str]) -> alt.Chart:
    """Stacked bars over iterations: (iteration, part, amount), parts in the order of ``colours``."""
    order = list(colours)
    rows = [
        {"iteration": n, "part": part, "amount": amount, "rank": order.index(part)}
        for n, part, amount in amounts
        if part in colours and amount
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("iteration:O", title=None, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("amount:Q", title=None, axis=alt.Axis(format="d", tickMinStep=1, tickCount=5)),
            color=_colour(colours, "part"),
            order=alt.Order("rank:Q"),
            tooltip=["iteration:O", "part:N", "amount:Q"],
        )
    )


def _iterations(numbers: Sequence[int]) -> alt.X:
    low, high = min(numbers, default=1), max(numbers, default=1)
    axis = alt.Axis(format="d", tickMinStep=1, tickCount=min(10, high - low + 1), grid=False)
    ends = alt.Scale(domain=[low - 0.5, high + 0.5], nice=False)
    return alt.X("iteration:Q", title=None, axis=axis, scale=ends)


def _colour(colours: Mapping[str, str], field: str = "series") -> alt.Color:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=None)
