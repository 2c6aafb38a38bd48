"""The dashboard: how the episodes ended, how much people had to correct, and how the labelling goes."""

from __future__ import annotations

from dataclasses import asdict

import streamlit as st

from labeling_app.charts import OUTCOME_LEGEND, iteration_chart, outcome_chart
from labeling_app.dashboard_figures import (
    annotators,
    corrections,
    day_of,
    outcome_counts,
    policy_of,
    task_of,
    throughputs,
)
from labeling_app.identity import Person
from labeling_app.opened import Opened
from pipeline.labels import Agreement
from pipeline.workspace import IndexedEpisode

CHART_HEIGHT = 210
DAYS = 30
LEGEND = {
    "success": "green",
    "failure": "red",
    "exclude": "violet",
    "disputed": "orange",
    "unlabelled": "gray",
}
PACE_HELP = (
    "3600 divided by the median seconds between two labels, pauses of ten minutes and more aside; "
    "from a minute of work on."
)


def draw(shared: Opened, person: Person) -> None:
    """Draws the page once, from what is known now."""
    episodes = list(shared.catalogue.episodes().values())
    if not episodes:
        st.title("No episodes yet")
        st.write("They appear here as soon as they are recorded, by people or by `recap demo`.")
        return
    agreement = shared.store.agreement()
    draw_numbers(shared, episodes, agreement)
    draw_outcomes(shared, episodes)
    left, right = st.columns(2, gap="medium")
    with left:
        draw_people(shared, agreement)
    with right:
        draw_corrections(episodes)
        draw_throughput(shared)


def draw_numbers(shared: Opened, episodes: list[IndexedEpisode], agreement: Agreement) -> None:
    """The row of figures at the top."""
    progress = shared.store.progress()
    decided = progress.success + progress.failure
    policy = [item for item in episodes if item.driver in {"policy", "corrected"}]
    corrected = sum(item.driver == "corrected" for item in policy)
    alpha = "–" if agreement.alpha is None else f"{agreement.alpha:.2f}"
    labelled = progress.total - progress.unlabelled
    figures = (
        ("Labelled", f"{labelled} of {progress.total}", None),
        ("Labels in the last hour", str(progress.last_hour), None),
        (
            "Success",
            f"{progress.success / decided:.0%}" if decided else "–",
            "Of the episodes labelled success or failure.",
        ),
        (
            "Rollouts corrected",
            f"{corrected / len(policy):.0%}" if policy else "–",
            "Of the episodes that a policy drove.",
        ),
        (
            "Agreement (α)",
            alpha,
            f"Krippendorff's alpha over {agreement.n} episodes that two people labelled blind.",
        ),
        ("In dispute", str(progress.disputed), "Two people differ; a reviewer decides."),
    )
    for column, (name, value, why) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(name, value, help=why, border=True)


def draw_outcomes(shared: Opened, episodes: list[IndexedEpisode]) -> None:
    """Three charts of the same thing: by task, by policy, by day."""
    outcomes = {id_: label.outcome for id_, label in shared.store.current().items()}
    outcomes |= {dispute.episode_id: "disputed" for dispute in shared.store.disputed()}
    days = sorted({day_of(item) for item in episodes})[-DAYS:]
    recent = [item for item in episodes if day_of(item) in days]
    charts = (
        ("by task", outcome_chart(outcome_counts(episodes, outcomes, task_of))),
        ("by policy", outcome_chart(outcome_counts(episodes, outcomes, policy_of))),
        ("by day of recording", outcome_chart(outcome_counts(recent, outcomes, day_of), over_time=True)),
    )
    st.html(OUTCOME_LEGEND)
    for column, (title, chart) in zip(st.columns(3, gap="medium"), charts, strict=True):
        with column:
            st.caption(title)
            st.altair_chart(chart, height=CHART_HEIGHT)


def draw_people(shared: Opened, agreement: Agreement) -> None:
    """Who labelled how much, how fast, and how reliably."""
    st.markdown("**People**")
    gold = {found.annotator: found for found in agreement.gold}
    rows = [
        {
            "name": someone.name,
            "labels": someone.labels,
            "today": someone.today,
            "per hour": "–" if someone.per_hour is None else str(round(someone.per_hour)),
            "decided": someone.decided,
            "right on gold": f"{gold[someone.name].correct} of {gold[someone.name].n}"
            if someone.name in gold
            else "–",
        }
        for someone in annotators(shared.store.events())
    ]
    if not rows:
        st.caption("Nobody has labelled yet.")
        return
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            "per hour": st.column_config.TextColumn(help=PACE_HELP),
            "decided": st.column_config.NumberColumn(help="As a reviewer: disputes and gold episodes."),
        },
    )
    pairs = [
        {
            "two people": f"{pair.first} and {pair.second}",
            "episodes": pair.n,
            "agreed": pair.agreed,
            "Cohen's κ": "–" if pair.kappa is None else f"{pair.kappa:.2f}",
        }
        for pair in agreement.pairs
    ]
    if pairs:
        st.dataframe(pairs, hide_index=True)
    else:
        st.caption(
            "No episode has been labelled by two people yet: `[labels] double_share` says how many are to be."
        )


def draw_corrections(episodes: list[IndexedEpisode]) -> None:
    """How much each policy had to be corrected."""
    st.markdown("**Corrections by policy**")
    rows = [
        {
            "policy": found.policy,
            "episodes": found.episodes,
            "corrected": found.corrected,
            "seconds an episode": round(found.seconds_each, 1),
            "share of the time": found.share_of_time,
        }
        for found in corrections(episodes)
    ]
    if rows:
        share = st.column_config.NumberColumn(format="percent")
        st.dataframe(rows, hide_index=True, column_config={"share of the time": share})
    else:
        st.caption("No policy has driven yet.")


def draw_throughput(shared: Opened) -> None:
    """What the loop's ledger says of each iteration."""
    st.markdown("**Throughput over iterations**")
    found = throughputs(shared.workspace.ledger_path)
    rows = [asdict(one) for one in found]
    if len({one.iteration for one in found}) == 1:  # no line goes through one point
        numbers = [
            {
                "policy": one.policy,
                "successes an hour": f"{one.value:.0f}",
                "95 % interval": f"{one.low:.0f} to {one.high:.0f}",
            }
            for one in found
        ]
        st.caption(f"Iteration {found[0].iteration}; the next ones make a chart.")
        st.dataframe(numbers, hide_index=True)
    elif rows:
        st.altair_chart(iteration_chart(rows), height=CHART_HEIGHT)
    else:
        st.caption("No iteration yet: `recap improve` makes one.")
