"""The page over iterations: whether policies get better, what came in, and what was decided.

Shows what the loop wrote into ``reports/iterations.json``, and reads nothing else of the loop's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from labeling_app.identity import Person
from labeling_app.iteration_charts import (
    CORRECTION_COLOURS,
    KIND_COLOURS,
    LABEL_COLOURS,
    POLICY_COLOURS,
    SOURCE_COLOURS,
    VALUE_COLOURS,
    LinePoint,
    legend,
    line_chart,
    stack_chart,
)
from labeling_app.iteration_details import draw_iteration
from labeling_app.iteration_series import (
    Amounts,
    correction_points,
    history_rows,
    kind_amounts,
    label_amounts,
    policy_points,
    positive_points,
    threshold_rows,
    value_points,
)
from labeling_app.opened import Opened
from labeling_app.plain_text import plain
from pipeline.iteration_file import read_iterations
from pipeline.iteration_records import IterationRecord, IterationsDocument

CHART_HEIGHT = 190
MOST_HEIGHT = 320


def draw(shared: Opened, person: Person, review: StreamlitPage | None = None) -> None:
    """Draws the page once. ``review``: the page on which an episode can be looked at."""
    document = read_iterations(shared.workspace.reports)
    if document is None or not (document.iterations or document.refused):
        st.title("No iterations yet")
        written = (
            "" if not shared.workspace.ledger_path.is_file() else " `recap report --all` looks for them."
        )
        st.write(f"They appear here when the loop has run: `recap improve` or `recap demo`.{written}")
        return
    draw_problems(document)
    draw_numbers(document)
    draw_charts(document.iterations)
    draw_history(document)
    draw_iteration(shared, person, document, review)


def draw_problems(document: IterationsDocument) -> None:
    """What could not be read, iteration by iteration; the rest is shown all the same."""
    found = [*document.problems]
    found += [f"Iteration {one.n}: {problem}" for one in document.iterations for problem in one.problems]
    if found:
        shown = "\n".join(f"- {plain(problem)}" for problem in found[:5])
        more = f"\n- and {len(found) - 5} more" if len(found) > 5 else ""
        st.warning(f"Some figures are missing:\n{shown}{more}")


def draw_numbers(document: IterationsDocument) -> None:
    """The row of figures at the top: who drives, how well, and what that took."""
    iterations, champion = document.iterations, document.champion
    now = document.standing
    where = (
        "–" if champion is None else "base" if champion.iteration == 0 else f"iteration {champion.iteration}"
    )
    columns = st.columns(5)
    columns[0].metric(
        "Champion",
        where,
        None if champion is None else f"since {champion.since[:10]}",
        delta_color="off",
        delta_arrow="off",
        help=None if champion is None else plain(f"{champion.kind}: {champion.reason}"),
        border=True,
    )
    rate, hour, gain, more = "–", "–", None, None
    if now is not None:
        best, base = now.champion, now.base
        rate, hour = f"{best.success_rate.value:.0%}", f"{best.successes_per_hour.value:.0f}"
        if best != base:
            gain = f"{100 * (best.success_rate.value - base.success_rate.value):+.0f} points over base"
            more = f"{best.successes_per_hour.value - base.successes_per_hour.value:+.0f} over base"
    columns[1].metric("It succeeds in", rate, gain, border=True)
    columns[2].metric("Successes per hour", hour, more, border=True)
    totals = [sum(one.data.episodes.values()) for one in iterations if one.data is not None]
    grown = f"{totals[-1] - totals[-2]:+d} in the last iteration" if len(totals) > 1 else None
    columns[3].metric("Episodes learned from", totals[-1] if totals else "–", grown, border=True)
    helped = [one.rollouts.per_episode for one in iterations if one.rollouts is not None]
    change = f"{helped[-1] - helped[0]:+.1f} since the first" if len(helped) > 1 else None
    columns[4].metric(
        "Corrections per rollout",
        f"{helped[-1]:.1f}" if helped else "–",
        change,
        delta_color="inverse",
        help="Times that a person took over, in the rollouts that came in last.",
        border=True,
    )


def draw_charts(iterations: tuple[IterationRecord, ...]) -> None:
    """Two rows of three: how good policies are and how much help they need; data, labels, values."""
    if not iterations:
        return
    above, below = st.columns(3, gap="medium"), st.columns(3, gap="medium")
    with above[0]:
        points = policy_points(iterations, "success_rate")
        draw_lines("Success rate", points, POLICY_COLOURS, percent=True, full=True)
    with above[1]:
        points = policy_points(iterations, "successes_per_hour")
        draw_lines("Successes per robot hour", points, POLICY_COLOURS)
    with above[2]:
        draw_lines("Corrections per rollout", correction_points(iterations), CORRECTION_COLOURS)
    with below[0]:
        draw_stack("Episodes, by how they were recorded", kind_amounts(iterations), KIND_COLOURS)
    with below[1]:
        draw_stack("Labels", label_amounts(iterations), LABEL_COLOURS)
    with below[2]:
        choices = ("Quality of values", "Marked positive", "Thresholds")
        picked = st.segmented_control("Values", choices, default=choices[0], label_visibility="collapsed")
        if picked == "Thresholds":
            rows = threshold_rows(iterations)
            st.dataframe(rows, hide_index=True, height=CHART_HEIGHT)
        elif picked == "Marked positive":
            draw_lines("", positive_points(iterations), SOURCE_COLOURS, percent=True, full=True)
        else:
            draw_lines("", value_points(iterations), VALUE_COLOURS)


def draw_lines(
    title: str,
    points: Sequence[LinePoint],
    colours: Mapping[str, str],
    *,
    percent: bool = False,
    full: bool = False,
) -> None:
    """A chart of lines with its title and what the colours mean."""
    draw_heading(title, legend(colours, (point.series for point in points)))
    if points:
        st.altair_chart(line_chart(points, colours, percent=percent, full=full), height=CHART_HEIGHT)
    else:
        st.caption("Nothing is known of it yet.")


def draw_stack(title: str, amounts: Amounts, colours: Mapping[str, str]) -> None:
    """A chart of stacked bars with its title and what the colours mean."""
    draw_heading(title, legend(colours, (part for _, part, amount in amounts if amount)))
    if amounts:
        st.altair_chart(stack_chart(amounts, colours), height=CHART_HEIGHT)
    else:
        st.caption("Nothing is known of it yet.")


def draw_heading(title: str, meaning: str) -> None:
    """A chart's title and, below it, its colours; both are the app's own words."""
    first = f"<b>{title}</b><br>" if title else ""
    st.html(f"<div style='font-size:0.87rem;line-height:1.5'>{first}{meaning}</div>")


def draw_history(document: IterationsDocument) -> None:
    """Every decision, newest first."""
    st.markdown("**What was decided** · newest first")
    rows = history_rows(document)
    config = {
        "succeeds": st.column_config.TextColumn(help="The candidate, on the starts that all policies ran."),
        "why": st.column_config.TextColumn(width="large"),
    }
    height = min(38 + 35 * len(rows), MOST_HEIGHT)
    st.dataframe(rows, hide_index=True, height=height, column_config=config)
