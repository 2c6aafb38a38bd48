"""Charts of the review page and the dashboard, in the colours of the rest of the app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from labeling_app.driving import DRIVERS

OUTCOME_COLOURS = {
    "success": "#2f9e44",
    "failure": "#e03131",
    "exclude": "#748ffc",
    "disputed": "#f08c00",
    "unlabelled": "#adb5bd",
}
OUTCOME_LEGEND = "<b>How episodes ended</b> " + " ".join(
    f"<span style='margin-left:1rem'><span style='color:{colour}'>■</span> {outcome}</span>"
    for outcome, colour in OUTCOME_COLOURS.items()
)
SLIDER_COLOUR = "#e8590c"
DRIVER_COLOURS = {driver.words: f"#{bytes(driver.rgb).hex()}" for driver in DRIVERS.values()}


def histogram_chart(
    edges: np.ndarray, counts: Mapping[str, np.ndarray], threshold: float, recorded: float | None
) -> alt.LayerChart:
    """How often each advantage occurs, stacked by who drove, with a line at the threshold.

    ``edges`` ``(B + 1,)``; ``counts`` maps each driver's words to ``(B,)`` frames.
    """
    rows = [
        {"from": float(edges[i]), "to": float(edges[i + 1]), "frames": int(number), "driver": driver}
        for driver, numbers in counts.items()
        for i, number in enumerate(numbers)
    ]
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(binSpacing=0)
        .encode(
            x=alt.X("from:Q", bin="binned", title="advantage"),
            x2="to:Q",
            y=alt.Y("frames:Q", stack=True, title="frames"),
            color=driver_colour(list(counts)),
            opacity=alt.condition(alt.datum["to"] > threshold, alt.value(1.0), alt.value(0.35)),
            tooltip=["driver:N", "frames:Q", alt.Tooltip("from:Q", format=".3f")],
        )
    )
    layers = [] if recorded is None else [_line(recorded, [4, 4], "#868e96")]
    layers.append(_line(threshold, [1, 0], SLIDER_COLOUR))  # the last is on top
    return bars + alt.layer(*layers)


def _line(at: float, dash: list[float], colour: str) -> alt.Chart:
    rule = alt.Chart(alt.Data(values=[{"at": at}])).mark_rule(strokeWidth=2.5, strokeDash=dash, color=colour)
    return rule.encode(x="at:Q")


def driver_colour(drivers: Sequence[str]) -> alt.Color:
    """The colours of drivers; the film's own legend says what they mean."""
    scale = alt.Scale(domain=list(drivers), range=[DRIVER_COLOURS[driver] for driver in drivers])
    return alt.Color("driver:N", scale=scale, legend=None)


def outcome_chart(rows: Sequence[Mapping[str, Any]], *, over_time: bool = False) -> alt.Chart:
    """Episodes by outcome: a bar for each ``group`` of ``rows`` (group, outcome, episodes).

    Bars lie, or with ``over_time`` stand side by side from the earliest to the latest.
    """
    outcomes = list(OUTCOME_COLOURS)
    found = [{**row, "rank": outcomes.index(str(row["outcome"]))} for row in rows]
    whole = alt.Axis(tickMinStep=1, format="d", tickCount=6)
    if over_time:
        axes = {
            "x": alt.X(
                "group:O", title=None, sort="ascending", axis=alt.Axis(labelAngle=-40, labelLimit=120)
            ),
            "y": alt.Y("sum(episodes):Q", title="episodes", axis=whole),
        }
    else:
        axes = {
            "y": alt.Y("group:N", title=None, sort=None, axis=alt.Axis(labelLimit=260)),
            "x": alt.X("sum(episodes):Q", title="episodes", axis=whole),
        }
    return (
        alt.Chart(alt.Data(values=found))
        .mark_bar(size=18)
        .encode(
            **axes,
            color=alt.Color(
                "outcome:N",
                scale=alt.Scale(domain=outcomes, range=list(OUTCOME_COLOURS.values())),
                legend=None,
            ),
            order=alt.Order("rank:Q"),
            tooltip=["group:N", "outcome:N", "episodes:Q"],
        )
    )


def iteration_chart(rows: Sequence[Mapping[str, Any]]) -> alt.LayerChart:
    """Successes per hour of each policy over the iterations, with its interval: rows of ``Throughput``."""
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows]))
    x = alt.X("iteration:O", title="iteration", axis=alt.Axis(labelAngle=0))
    colour = alt.Color("policy:N", legend=alt.Legend(title=None, orient="bottom"))
    bars = base.mark_rule(strokeWidth=2).encode(
        x=x, y=alt.Y("low:Q", title="successes / h"), y2="high:Q", color=colour
    )
    points = base.mark_line(point=True).encode(
        x=x, y="value:Q", color=colour, tooltip=["policy:N", "iteration:O", "value:Q"]
    )
    return alt.layer(bars, points)  # type: ignore[return-value]  # no facets in it
