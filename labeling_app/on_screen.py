"""What is on one browser's label page, and what its keys do to it.

Streamlit ends a run at whatever access to the page or its session comes next, once a key or a click has
started another one or the browser has gone; with its fast reruns the next run begins meanwhile, in a thread
of its own. So what belongs together is in one plain :class:`Screen`, which a run changes in one go, and a
lease that a run took is given back where the run ends before the screen has it: it would be nobody's until it
runs out. One run at a time leases for a screen: where two claim the same episode, the older of the two leases
is none, and it could be the one shown. The screen is gone when the connection closes; the page's address
keeps the name and the leases.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock

import streamlit as st

from labeling_app.labeling_queue import LabelingQueue, Ticket
from labeling_app.messages import SKIP, Said, read_message
from labeling_app.player import last_message
from pipeline.errors import Failure, InputError
from pipeline.labels import LabelEvent, StaleLease

ANSWERED = {"success": "Success", "failure": "Failure", "exclude": "Excluded"}
SHOWN, NEXT = "at", "next"
"""The names under which the page's address keeps the two leases."""


@dataclass
class Screen:
    """One browser's page: ``ticket`` is the episode shown, ``ahead`` the next one, ``queue`` whose they are.

    ``skipped``: the episodes not to be shown again for now. ``wanted``: the one to show next. ``attempt``
    counts messages, so that the player hears of each reply. ``taken_back``: the answer that undo took back,
    whose marks are shown again. ``notice`` and ``problem``: a line to show once. ``lock`` is held by
    the run that takes leases or gives them back.
    """

    queue: LabelingQueue | None = None
    ticket: Ticket | None = None
    ahead: Ticket | None = None
    skipped: set[str] = field(default_factory=set)
    wanted: str | None = None
    attempt: int = 0
    taken_back: LabelEvent | None = None
    notice: str | None = None
    problem: str | None = None
    lock: Lock = field(default_factory=Lock, repr=False, compare=False)


def screen() -> Screen:
    """This session's screen. A run that Streamlit has ended goes no further than here."""
    st.session_state.setdefault("screen", Screen())
    found: Screen = st.session_state["screen"]
    return found


def current_ticket(queue: LabelingQueue) -> Ticket | None:
    """The episode on the screen. After a reload, the page's address still says which it was."""
    with screen().lock:
        return _current(screen(), queue)  # asked once more: a run that was ended while it waited stops here


def _current(now: Screen, queue: LabelingQueue) -> Ticket | None:
    if now.queue is None:
        now.notice = what_was_saved(queue) or now.notice
        now.ticket = queue.resume(st.query_params.get(SHOWN))
        now.ahead = queue.resume(st.query_params.get(NEXT))
    elif now.queue.annotator != queue.annotator or now.queue.wanted != queue.wanted:
        put_back(now, everything=True)
    ticket, ahead, taken, notice = now.ticket, now.ahead, None, now.notice
    if ticket is None:
        if now.wanted is not None:
            taken = queue.take_one(now.wanted)
            if taken is None:
                notice = f"{notice or ''} Somebody else looks at it now: here is another."
        ticket = taken
        if ticket is None:
            ticket, ahead = queue.kept(ahead), None
        if ticket is None:
            ticket = taken = queue.take(now.skipped)
    with given_back_unless_shown(queue, taken):
        _remember(SHOWN, ticket)
        _remember(NEXT, ahead)
        now = screen()
    now.queue, now.ticket, now.ahead = queue, ticket, ahead
    now.wanted, now.notice = None, notice
    return ticket


def look_ahead(queue: LabelingQueue) -> Ticket | None:
    """Leases the episode to show next, so that its film can be made meanwhile."""
    with screen().lock:
        now = screen()
        if now.ahead is None and now.ticket is not None:
            taken = queue.take_ahead({*now.skipped, now.ticket.entry.id})
            with given_back_unless_shown(queue, taken):
                _remember(NEXT, taken)
                now = screen()
            now.ahead = taken
        return now.ahead


@contextmanager
def given_back_unless_shown(queue: LabelingQueue, taken: Ticket | None) -> Iterator[None]:
    """Gives a lease back at once where the run ends inside, so that others need not wait until it runs out.

    Streamlit ends a run by an exception that is no ``Exception``.
    """
    try:
        yield
    except BaseException:
        if taken is not None:
            with suppress(InputError, Failure):  # then it runs out by itself
                queue.give_back(taken)
        raise


def keep_leases(queue: LabelingQueue) -> bool:
    """Prolongs the leases while the page is open; ``False`` if the episode on the screen was lost."""
    before = screen()
    ticket, ahead = before.ticket, before.ahead
    if ticket is None or before.queue is not queue:
        return True
    kept_ahead, kept = queue.kept(ahead), queue.kept(ticket)
    now = screen()
    if now.ahead is ahead:
        now.ahead = kept_ahead
    if now.ticket is ticket:
        now.ticket = kept
    return kept is not None


def heard() -> None:
    """The player has sent an answer. Whatever is wrong with it, the page says so and goes on."""
    now, message = screen(), last_message()
    with now.lock:
        queue, ticket = now.queue, now.ticket
        if message is None or ticket is None or queue is None:
            return
        now.attempt += 1
        try:
            said = read_message(message, ticket.entry.length)
            if said.token == ticket.token:  # a key pressed twice meant the episode only once
                take_in(now, queue, ticket, said)
        except StaleLease:
            now.problem = "Not saved: this episode went to someone else meanwhile. Here is another one."
            now.ticket = None
        except (InputError, Failure) as error:
            now.problem = f"{error} Your answer is still here: try again."


def take_in(now: Screen, queue: LabelingQueue, ticket: Ticket, said: Said) -> None:
    """Does what was said of the episode on the screen. Raises what the label store raises."""
    if said.answer == SKIP:
        queue.give_back(ticket)
        now.skipped = {*now.skipped, ticket.entry.id}
    else:
        queue.answer(ticket, said)
        now.notice = f"{ANSWERED[said.answer]}: {ticket.entry.info.task}"
    now.ticket = now.taken_back = None


def undo(queue: LabelingQueue) -> None:
    """The key for undo: the label is taken back and its episode is shown again."""
    now = screen()
    with now.lock:
        try:
            event = queue.undo()  # what was said; the player shows it again
            if event is None:
                return
            put_back(now)
        except (InputError, Failure) as error:
            now.problem = str(error)
            return
        now.wanted, now.taken_back = event.episode_id, event
        now.notice = f"Taken back: {words_of(queue, event)}"


def words_of(queue: LabelingQueue, event: LabelEvent) -> str:
    """An answer in words: what was said, of which task."""
    found = queue.catalogue.episodes().get(event.episode_id)
    return f"{ANSWERED[event.outcome or '']}: {event.episode_id if found is None else found.entry.info.task}"


def what_was_saved(queue: LabelingQueue) -> str | None:
    """After the server was away: whether the answer to the film that the page's address names was stored."""
    episode_id = (st.query_params.get(SHOWN) or "").rpartition(":")[0]
    newest = queue.own_labels(1)
    if newest and newest[0].episode_id == episode_id:
        return f"Your last answer is saved. {words_of(queue, newest[0])}"
    return None


def put_back(now: Screen, *, everything: bool = False) -> None:
    """Gives the episode on the screen back; with ``everything`` the next one too."""
    if now.queue is None:
        return
    if now.ticket is not None:
        now.queue.give_back(now.ticket)
        now.ticket = None
    if everything and now.ahead is not None:
        now.queue.give_back(now.ahead)
        now.ahead = None


def leave() -> None:
    """Gives everything back and asks for a name again."""
    with suppress(InputError, Failure):  # then the leases run out by themselves
        put_back(screen(), everything=True)
    st.session_state.clear()
    st.query_params.clear()


def forget_skipped() -> None:
    """Shows skipped episodes again."""
    now = screen()
    now.skipped, now.ticket = set(), None


def _remember(name: str, ticket: Ticket | None) -> None:
    if ticket is not None:
        st.query_params[name] = ticket.token
    elif name in st.query_params:
        del st.query_params[name]
