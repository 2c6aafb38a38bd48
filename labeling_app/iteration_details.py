"""One iteration in detail, below the charts: what came in, who labelled, how it was decided, the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from labeling_app.identity import Person
from labeling_app.opened import Opened
from labeling_app.plain_text import plain
from pipeline.iteration_records import GUARD_WORDS, LOOK_WORDS, IterationRecord, IterationsDocument


def draw_iteration(
    shared: Opened, person: Person, document: IterationsDocument, review: StreamlitPage | None
) -> None:
    """Draws the iteration that is picked; the newest at first."""
    if not document.iterations:
        return
    numbers = [record.n for record in reversed(document.iterations)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        picked = st.selectbox("Iteration", numbers, key="iteration", width=160)
        record = document.iteration(picked)
        if record is None:
            return
        draw_report(shared, person, record)
    left, right = st.columns(2, gap="medium")
    with left:
        draw_incoming(record)
        draw_watched(record, person, review)
    with right:
        draw_decision(record)
    draw_steps(record)


def draw_report(shared: Opened, person: Person, record: IterationRecord) -> None:
    """The iteration's whole report, for reviewers: it names the outcomes of episodes."""
    # By the number, not by the name in the file: no file can make the server give away another.
    path = shared.workspace.reports / f"iteration-{record.n}.html"
    if not path.is_file():
        st.caption("Its report is not there any more.")
    elif not person.reviewer:
        st.caption("Whole reports are for reviewers: they show how single episodes were labelled.")
    else:
        st.download_button(
            "Whole report",
            path.read_bytes,
            f"iteration-{record.n}.html",
            "text/html",
            icon=":material/download:",
            on_click="ignore",
        )


def draw_incoming(record: IterationRecord) -> None:
    """What is new, and who labelled."""
    data = record.data
    st.markdown("**What came in**")
    if data is None:
        st.caption("Not known: its labels or steps are gone.")
        return
    if data.incoming is None:
        st.caption("What is new cannot be told: the labels of the iteration before are gone.")
    else:
        rows = [
            {
                "recorded as": g.kind,
                "task": g.task,
                "by": g.operator,
                "day": g.day,
                "new episodes": g.episodes,
            }
            for g in data.incoming
        ]
        if rows:
            st.dataframe(rows, hide_index=True, height=min(38 + 35 * len(rows), 213))
        else:
            st.caption("No new episode.")
    said = [f"{name} {count}" for name, count in data.annotators.items()]
    new = "" if data.new_labels is None else f" · {data.new_labels} new or changed"
    st.caption(plain(f"Labels: {', '.join(said) or 'none'}{new}"))
    st.caption(
        f"Two people agree on {data.confirmed} episodes and differ on {data.disputed}; those are left out."
    )


def draw_watched(record: IterationRecord, person: Person, review: StreamlitPage | None) -> None:
    """The rollouts that people corrected most; each opens on the review page."""
    if record.rollouts is None or not record.rollouts.watched:
        return
    st.markdown("**Most corrected rollouts**")
    for found in record.rollouts.watched:
        times = "once" if found.interventions == 1 else f"{found.interventions} times"
        words = plain(f"{found.episode} · {found.task} · corrected {times}")
        if review is None:
            st.caption(words)
        else:
            st.page_link(
                review,
                label=words,
                icon=":material/play_circle:",
                query_params={"episode": found.episode, "name": person.name},
            )


def draw_decision(record: IterationRecord) -> None:
    """The decision in words, the looks at the evaluation, the guard rails, and every policy's numbers."""
    st.markdown("**How it was decided**")
    st.write(plain(record.reason or "No reason was noted."))
    if record.rule:
        st.caption(plain(record.rule))
    rows = [
        {
            "policy": policy.name,
            "attempts": policy.attempts,
            "succeeds": f"{policy.success_rate.value:.0%}",
            "95 % interval": f"{policy.success_rate.low:.0%} to {policy.success_rate.high:.0%}",
            "per hour": round(policy.successes_per_hour.value),
            "corrections": policy.interventions,
        }
        for policy in record.policies
    ]
    if rows:
        if all(policy.interventions is None for policy in record.policies):
            rows = [{name: value for name, value in row.items() if name != "corrections"} for row in rows]
        st.dataframe(rows, hide_index=True)
    for title, given, words in (
        ("Looks at the evaluation", record.looks, LOOK_WORDS),
        ("Guard rails", record.guards, GUARD_WORDS),
    ):
        if given:
            st.caption(title)
            st.dataframe(in_words(given, words), hide_index=True)


def in_words(rows: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows with names that a reader understands; names that nobody knows stay as they are."""
    return [
        {
            words.get(name, name): float(f"{value:.3g}") if isinstance(value, float) else value
            for name, value in row.items()
            if words.get(name, name)
        }
        for row in rows
    ]


def draw_steps(record: IterationRecord) -> None:
    """Which steps made which figures."""
    with st.expander("Where these figures come from"):
        st.caption("`recap status --lineage --of NAME/KEY` shows what a step came from.")
        rows = [{"figures": group, "steps": ", ".join(steps)} for group, steps in record.sources.items()]
        st.dataframe(rows, hide_index=True)
