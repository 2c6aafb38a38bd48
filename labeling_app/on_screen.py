"""What is on one browser's screen, and what its buttons do to it.

Streamlit's session state holds ``ticket`` (the episode shown), ``queue`` (whose it is), ``skipped`` (ids),
``wanted`` (the id to show next) and ``notice`` (a line to show once). It is gone when the connection closes;
the page's address keeps the name and the episode.
"""

from __future__ import annotations

import streamlit as st

from labeling_app.labeling_queue import LabelingQueue, Ticket
from pipeline.errors import InputError
from pipeline.labels import StaleLease

ANSWERED = {"success": "Success", "failure": "Failure", "exclude": "Excluded"}


def current_ticket(queue: LabelingQueue) -> Ticket | None:
    """The episode on the screen. After a reload, the page's address still says which it was."""
    ticket: Ticket | None = st.session_state.get("ticket")
    if ticket is None or ticket.lease.annotator != queue.annotator:
        wanted = st.session_state.pop("wanted", None)
        if wanted is None and "ticket" not in st.session_state:
            remembered = st.query_params.get("episode")
            wanted = remembered if remembered and not queue.is_labelled(remembered) else None
        ticket = queue.take(st.session_state.get("skipped", ()), wanted)
        st.session_state["queue"], st.session_state["ticket"] = queue, ticket
    if ticket is not None:
        st.query_params["episode"] = ticket.entry.id
    elif "episode" in st.query_params:
        del st.query_params["episode"]
    return ticket


def note_key(ticket: Ticket) -> str:
    """The note's field is a new one for every episode, so that a note never passes to the next."""
    return f"note-{ticket.entry.id}-{ticket.lease.fence}"


def is_on_screen(ticket: Ticket) -> bool:
    """Whether a click meant the episode shown now; a key pressed twice did so only the first time."""
    shown: Ticket | None = st.session_state.get("ticket")
    return shown is not None and shown.lease.fence == ticket.lease.fence and shown.entry.id == ticket.entry.id


def record(queue: LabelingQueue, ticket: Ticket, outcome: str) -> None:
    """A click on an answer."""
    if not is_on_screen(ticket):
        return
    try:
        queue.answer(ticket, outcome, st.session_state.get(note_key(ticket), ""))
        st.session_state["notice"] = f"{ANSWERED[outcome]}: {ticket.entry.info.task}"
    except StaleLease:
        st.session_state["notice"] = "Not saved: this episode went to someone else meanwhile."
    st.session_state["ticket"] = None


def skip(queue: LabelingQueue, ticket: Ticket) -> None:
    """A click on skip: not now, and not again until everything else is done."""
    if not is_on_screen(ticket):
        return
    queue.skip(ticket)
    st.session_state["skipped"] = {*st.session_state.get("skipped", ()), ticket.entry.id}
    st.session_state["ticket"] = None


def undo(queue: LabelingQueue) -> None:
    """A click on undo: the label is taken back and its episode is shown again."""
    try:
        event = queue.undo()
    except InputError as error:
        st.session_state["notice"] = str(error)
        return
    if event is None:
        return
    put_back()
    st.session_state["wanted"] = event.episode_id
    st.session_state["notice"] = "Your last label is taken back: here is its episode again."


def put_back() -> None:
    """Gives the episode on the screen back, so that another one is taken."""
    ticket: Ticket | None = st.session_state.get("ticket")
    if ticket is not None:
        st.session_state["queue"].skip(ticket)
    st.session_state["ticket"] = None


def leave() -> None:
    """Gives the episode back and asks for a name again."""
    put_back()
    st.session_state.clear()
    st.query_params.clear()


def forget_skipped() -> None:
    """Shows skipped episodes again."""
    st.session_state["skipped"] = set()
    st.session_state["ticket"] = None
