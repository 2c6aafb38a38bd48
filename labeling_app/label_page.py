"""The label page: one episode at a time, its film, and a key for every answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import streamlit as st

from labeling_app.identity import Person, serves_this_computer_only
from labeling_app.labeling_queue import LabelingQueue, Ticket
from labeling_app.on_screen import (
    current_ticket,
    forget_skipped,
    heard,
    keep_leases,
    leave,
    look_ahead,
    screen,
    undo,
)
from labeling_app.opened import Opened
from labeling_app.plain_text import plain
from labeling_app.player import film_data, show_player
from labeling_app.proposals import proposals
from labeling_app.queue_sidebar import chosen_filter, time_left
from pipeline.errors import Failure, InputError
from pipeline.labels import Progress

HEARTBEAT_S = 60
HISTORY_LENGTH = 10
ANSWER_MARKS = {"success": ":green[**✓**]", "failure": ":red[**✗**]", "exclude": "**⊘**"}
CUT_SHORT = "The recording was cut short: the film may end before the attempt does."
WHAT_COUNTS = "What counts is how it looks when the film ends, however long it took and whoever drove."


def draw(shared: Opened, person: Person) -> None:
    """Draws the page once; Streamlit runs it again after every answer."""
    with st.sidebar:
        draw_person(person)
        wanted = chosen_filter(shared)
    queue = LabelingQueue(shared.catalogue, shared.store, person.name, wanted)
    ticket = current_ticket(queue)
    now = screen()
    if now.problem:
        st.error(plain(now.problem))
        now.problem = None
    if now.notice:
        st.toast(plain(now.notice))
        now.notice = None
    draw_progress(shared, queue, something=ticket is not None)
    if ticket is None:
        draw_nothing_left(shared, queue)
        return
    draw_episode(shared, ticket)
    keep_open(queue)
    ahead = look_ahead(queue)
    if ahead is not None:
        shared.films.prepare(ahead.entry)


def draw_person(person: Person) -> None:
    """Who labels, with a way to say that it is somebody else."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(f"Labelling as {person.name}")
        if serves_this_computer_only():
            st.button(":blue[not you?]", key="leave", type="tertiary", on_click=leave)
        else:
            st.button(":blue[sign out]", key="sign_out", type="tertiary", on_click=st.logout)


def draw_progress(shared: Opened, queue: LabelingQueue, *, something: bool) -> None:
    """The rest of the sidebar: how far this annotator is, and what they said lately.

    ``something``: whether an episode is shown. Only their own numbers are here: those of all would tell
    which of their answers were second ones.
    """
    left = queue.left(screen().skipped)
    # What cannot be read is not to be answered either; what was taken back is.
    to_go = max(1, left.to_go) if something else 0
    given = queue.own_labels(HISTORY_LENGTH)
    with st.sidebar:
        share = left.answered / max(1, left.answered + to_go)
        st.progress(share, text=f"You have answered {left.answered}")
        st.caption(time_left(to_go, given))
        st.button(
            "Undo my last answer",
            key="undo",
            shortcut="U",
            icon=":material/undo:",
            width="stretch",
            disabled=not given,
            on_click=undo,
            args=(queue,),
        )
        if given:
            st.caption("Your latest labels, and what the operator said at recording")
        known = shared.catalogue.episodes()
        for label in given:
            found = known.get(label.episode_id)
            task, mark = (
                ("?", None) if found is None else (found.entry.info.task, found.entry.info.operator_mark)
            )
            said = f" · operator: {plain(mark)}" if mark else ""
            st.markdown(f"{ANSWER_MARKS[label.outcome or '']} {plain(task)}:gray[{said}]")


def draw_nothing_left(shared: Opened, queue: LabelingQueue) -> None:
    """The page when no episode is to be had."""
    progress = queue.progress()
    if progress.total == 0:
        st.title("No episodes yet")
        st.write("They appear here as soon as they are recorded, by people or by `recap demo`.")
    else:
        waiting = what_waits(progress)
        st.title("Nothing left for you" if waiting else "All episodes are labelled")
        st.write("  \n".join(waiting) or "Thank you. New ones appear here as soon as they are recorded.")
    if skipped := screen().skipped:
        st.button(f"Show the {len(skipped)} that I skipped", type="primary", on_click=forget_skipped)
    if st.button("Look again", icon=":material/refresh:"):
        shared.catalogue.look()
        st.rerun()


def what_waits(progress: Progress) -> list[str]:
    """What is not done yet although nothing is left for this annotator, in lines."""
    reasons = (
        (
            progress.unlabelled,
            "without a label: skipped by you, with a colleague, filtered out, or unreadable.",
        ),
        (progress.awaiting_second, "waiting for a second person."),
        (progress.disputed, "in dispute: a reviewer decides."),
    )
    return [f"{number} episode{'' if number == 1 else 's'} {words}" for number, words in reasons if number]


def draw_episode(shared: Opened, ticket: Ticket) -> None:
    """The question, the film, and the answers below it."""
    info = ticket.entry.info
    with st.container(gap=None):
        st.caption("Did the robot do this?")
        st.subheader(plain(info.task), anchor=False)
    show_player(player_data(shared, ticket), heard)
    with st.expander("About this episode"):
        st.text(description(ticket))


def player_data(shared: Opened, ticket: Ticket) -> dict[str, Any]:
    """What the player shows. An episode without a film can still be excluded or skipped."""
    try:
        with st.spinner("Making the film …"):
            film = film_data(shared.films.film(ticket.entry))
    except InputError as error:
        film = film_data(None, f"This film cannot be shown: {error}. Exclude the episode, or go to the next.")
    now = screen()
    before = now.taken_back
    if before is not None and before.episode_id != ticket.entry.id:
        before = None
    info = ticket.entry.info
    proposed, where_from = proposals(info.extra, ticket.entry.length) if before is None else ((), "")
    counts = CUT_SHORT if info.truncated else WHAT_COUNTS
    return {
        **film,
        "mode": "label",
        "episode": ticket.entry.id,
        "visit": ticket.lease.fence,
        "token": ticket.token,
        "attempt": now.attempt,
        "hint": f"{where_from} {counts}".lstrip(),
        "frame": None,
        "seek": 0,
        "marks": [asdict(mark) for mark in (proposed if before is None else before.marks)],
        "quality": None if before is None else before.quality,
        "note": "" if before is None else before.note,
    }


def description(ticket: Ticket) -> str:
    """What is known of an episode, as plain lines. Not the operator's own mark: it comes after the answer."""
    info, entry = ticket.entry.info, ticket.entry
    lines = {
        "episode": entry.id,
        "recorded": info.created,
        "robot": info.robot,
        "operator": info.operator,
        "policy": info.policy_checkpoint or "none",
        "length": f"{entry.length / info.rate_hz:.1f} s, {entry.length} frames",
    }
    return "\n".join(f"{name}: {' '.join(value.split())}" for name, value in lines.items())


@st.fragment(run_every=HEARTBEAT_S)
def keep_open(queue: LabelingQueue) -> None:
    """Prolongs the leases while the page is open; shows another episode if it was lost all the same."""
    try:
        kept = keep_leases(queue)
    except (InputError, Failure) as error:  # what goes on outside would not see it
        st.warning(plain(f"Answers cannot be saved right now: {error}"))
        return
    if not kept:
        screen().problem = "This episode went to someone else meanwhile. Here is another one."
        st.rerun()
