"""What is on one browser's label page, and what its keys do to it.

Streamlit's session state holds ``ticket`` (the episode shown), ``ahead`` (the one after it), ``queue``
(whose they are), ``skipped`` (ids), ``wanted`` (the id to show next), ``attempt`` (counts messages, so that
the player hears of each reply), ``taken_back`` (the answer that undo took back: its marks are shown again),
``notice`` and ``problem`` (a line to show once). It is gone when the connection
closes; the page's address keeps the name and the leases.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import streamlit as st

from labeling_app.labeling_queue import LabelingQueue, Ticket
from labeling_app.messages import SKIP, Said, read_message
from labeling_app.player import last_message
from pipeline.errors import Failure, InputError
from pipeline.labels import LabelEvent, StaleLease

ANSWERED = {"success": "Success", "failure": "Failure", "exclude": "Excluded"}
SHOWN, NEXT = "at", "next"
"""The names under which the page's address keeps the two leases."""


def current_ticket(queue: LabelingQueue) -> Ticket | None:
    """The episode on the screen. After a reload, the page's address still says which it was."""
    state = st.session_state
    ticket: Ticket | None = state.get("ticket")
    ahead: Ticket | None = state.get("ahead")
    if "queue" not in state:
        say_what_was_saved(queue)
        ticket = queue.resume(st.query_params.get(SHOWN))
        ahead = queue.resume(st.query_params.get(NEXT))
    elif state["queue"].annotator != queue.annotator or state["queue"].wanted != queue.wanted:
        put_back(everything=True)
        ticket = ahead = None
    if ticket is None:
        wanted = state.pop("wanted", None)
        ticket = None if wanted is None else queue.take_one(wanted)
        if wanted is not None and ticket is None:
            state["notice"] = f"{state.get('notice', '')} Somebody else looks at it now: here is another."
        if ticket is None:
            ticket, ahead = queue.kept(ahead), None
        ticket = ticket or queue.take(skipped())
    state["queue"], state["ticket"], state["ahead"] = queue, ticket, ahead
    _remember(SHOWN, ticket)
    _remember(NEXT, ahead)
    return ticket


def look_ahead(queue: LabelingQueue) -> Ticket | None:
    """Leases the episode to show next, so that its film can be made meanwhile."""
    state = st.session_state
    if state.get("ahead") is None and state.get("ticket") is not None:
        state["ahead"] = queue.take_ahead({*skipped(), state["ticket"].entry.id})
        _remember(NEXT, state["ahead"])
    ahead: Ticket | None = state.get("ahead")
    return ahead


def keep_leases(queue: LabelingQueue) -> bool:
    """Prolongs the leases while the page is open; ``False`` if the episode on the screen was lost."""
    state = st.session_state
    if state.get("ticket") is None or state.get("queue") is not queue:
        return True
    state["ahead"] = queue.kept(state.get("ahead"))
    state["ticket"] = queue.kept(state["ticket"])
    return state["ticket"] is not None


def heard() -> None:
    """The player has sent an answer. Whatever is wrong with it, the page says so and goes on."""
    state = st.session_state
    queue, ticket = state.get("queue"), state.get("ticket")
    message = last_message()
    if message is None or ticket is None or queue is None:
        return
    state["attempt"] = state.get("attempt", 0) + 1
    try:
        said = read_message(message, ticket.entry.length)
        if said.token == ticket.token:  # a key pressed twice meant the episode only once
            take_in(queue, ticket, said)
    except StaleLease:
        state["problem"] = "Not saved: this episode went to someone else meanwhile. Here is another one."
        state["ticket"] = None
    except (InputError, Failure) as error:
        state["problem"] = f"{error} Your answer is still here: try again."


def take_in(queue: LabelingQueue, ticket: Ticket, said: Said) -> None:
    """Does what was said of the episode on the screen. Raises what the label store raises."""
    state = st.session_state
    if said.answer == SKIP:
        queue.give_back(ticket)
        state["skipped"] = {*skipped(), ticket.entry.id}
    else:
        queue.answer(ticket, said)
        state["notice"] = f"{ANSWERED[said.answer]}: {ticket.entry.info.task}"
    state.pop("taken_back", None)
    state["ticket"] = None


def undo(queue: LabelingQueue) -> None:
    """The key for undo: the label is taken back and its episode is shown again."""
    state = st.session_state
    try:
        event = queue.undo()  # what was said; the player shows it again
        if event is None:
            return
        put_back()
    except (InputError, Failure) as error:
        state["problem"] = str(error)
        return
    state["wanted"], state["taken_back"] = event.episode_id, event
    state["notice"] = f"Taken back: {words_of(queue, event)}"


def words_of(queue: LabelingQueue, event: LabelEvent) -> str:
    """An answer in words: what was said, of which task."""
    found = queue.catalogue.episodes().get(event.episode_id)
    return f"{ANSWERED[event.outcome or '']}: {event.episode_id if found is None else found.entry.info.task}"


def say_what_was_saved(queue: LabelingQueue) -> None:
    """After the server was away: whether the answer to the film that the page's address names was stored."""
    episode_id = (st.query_params.get(SHOWN) or "").rpartition(":")[0]
    newest = queue.own_labels(1)
    if newest and newest[0].episode_id == episode_id:
        st.session_state["notice"] = f"Your last answer is saved. {words_of(queue, newest[0])}"


def skipped() -> set[str]:
    """The episodes that are not to be shown again for now."""
    found: set[str] = st.session_state.get("skipped", set())
    return found


def put_back(*, everything: bool = False) -> None:
    """Gives the episode on the screen back; with ``everything`` the next one too."""
    state: Any = st.session_state
    for name in ("ticket", "ahead") if everything else ("ticket",):
        ticket: Ticket | None = state.get(name)
        if ticket is not None:
            state["queue"].give_back(ticket)
        state[name] = None


def leave() -> None:
    """Gives everything back and asks for a name again."""
    with suppress(InputError, Failure):  # then the leases run out by themselves
        put_back(everything=True)
    st.session_state.clear()
    st.query_params.clear()


def forget_skipped() -> None:
    """Shows skipped episodes again."""
    st.session_state["skipped"] = set()
    st.session_state["ticket"] = None


def _remember(name: str, ticket: Ticket | None) -> None:
    if ticket is not None:
        st.query_params[name] = ticket.token
    elif name in st.query_params:
        del st.query_params[name]
