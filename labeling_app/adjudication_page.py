"""The adjudication page: episodes on which annotators differ, decided by a reviewer with one key."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import streamlit as st

from labeling_app.identity import Person
from labeling_app.messages import SKIP, read_message
from labeling_app.opened import Opened
from labeling_app.plain_text import plain
from labeling_app.player import film_data, last_message, show_player
from pipeline.errors import Failure, InputError
from pipeline.labels import Dispute, LabelEvent, Opinion

OUTCOME_WORDS = {
    "success": ":green[**✓ success**]",
    "failure": ":red[**✗ failure**]",
    "exclude": "**⊘ exclude**",
}
DECISIONS = ("adjudication",)
RULE = "Your decision holds from now on. Neither answer is changed: both stay in the history."


def draw(shared: Opened, person: Person) -> None:
    """Draws the page once: the oldest dispute, both answers, and the keys that decide."""
    if not person.reviewer:
        st.error("Only reviewers decide disputes: `[labels] reviewers` in recap.toml names them.")
        return
    disputes = shared.store.disputed()
    if problem := st.session_state.pop("adjudication_problem", None):
        st.error(plain(problem))
    if notice := st.session_state.pop("adjudication_notice", None):
        st.success(plain(notice))
        st.toast(plain(notice))
    draw_undo(shared, person)
    if not disputes:
        st.title("No disputes")
        st.write(
            "When two people label the same episode without knowing of each other, and differ, "
            "you decide here."
        )
        return
    chosen = chosen_dispute(disputes)
    st.session_state["dispute"] = (chosen.episode_id, newest(chosen), shared, person.name)
    with st.container(gap=None):
        st.caption(f"{len(disputes)} to decide. Did the robot do this?")
        st.subheader(plain(chosen.task), anchor=False)
    for column, opinion in zip(st.columns(len(chosen.opinions)), chosen.opinions, strict=True):
        with column.container(border=True, gap="small"):
            draw_opinion(opinion, rate_hz(shared, chosen.episode_id))
    show_player(player_data(shared, chosen), heard)


def chosen_dispute(disputes: list[Dispute]) -> Dispute:
    """The dispute picked in the sidebar, or else the first."""
    by_id = {dispute.episode_id: dispute for dispute in disputes}
    first = st.session_state.get("adjudication_first")
    with st.sidebar:
        st.caption(f"{len(disputes)} episode{'' if len(disputes) == 1 else 's'} in dispute")
        picked = st.radio(
            "Episode",
            list(by_id),
            index=list(by_id).index(first) if first in by_id else 0,
            format_func=lambda episode_id: plain(f"{by_id[episode_id].task} · {episode_id}"),
            label_visibility="collapsed",
        )
    return by_id.get(str(picked), disputes[0])


def draw_undo(shared: Opened, person: Person) -> None:
    """The button, and key, that take back this reviewer's own last decision."""
    st.sidebar.button(
        "Undo my last decision",
        key="undo_decision",
        shortcut="U",
        icon=":material/undo:",
        width="stretch",
        disabled=not shared.store.labels_of(person.name, 1, roles=DECISIONS),
        on_click=undo,
        args=(shared, person.name),
    )


def draw_opinion(opinion: Opinion, rate: float) -> None:
    """What one annotator said, in three lines at most."""
    quality = f" · {opinion.quality}" if opinion.quality else ""
    st.markdown(f"{OUTCOME_WORDS[opinion.outcome]}{quality} &nbsp; {plain(opinion.annotator)}")
    said = [opinion.note] if opinion.note else []
    for mark in opinion.marks:
        words = mark.text if mark.kind == "segment" else f"moment of {mark.kind}"
        said.append(f"{mark.start_frame / rate:.1f} s: {words}")
    st.caption(plain(" · ".join(said)) if said else "without a note")


def player_data(shared: Opened, dispute: Dispute) -> dict[str, Any]:
    """What the player shows: the film; the marks of both are in words above it."""
    try:
        film = film_data(shared.films.film(shared.catalogue.find(dispute.episode_id).entry))
    except InputError as error:
        film = film_data(None, f"This film cannot be shown: {error}")
    before: LabelEvent | None = st.session_state.get("adjudication_taken_back")
    if before is not None and before.episode_id != dispute.episode_id:
        before = None
    return {
        **film,
        "mode": "decide",
        "episode": dispute.episode_id,
        "visit": newest(dispute),
        "token": f"{dispute.episode_id}:{newest(dispute)}",
        "attempt": st.session_state.get("adjudication_attempt", 0),
        "hint": RULE,
        "frame": None,
        "seek": 0,
        "marks": [] if before is None else [asdict(mark) for mark in before.marks],
        "quality": None if before is None else before.quality,
        "note": "" if before is None else before.note,
    }


def newest(dispute: Dispute) -> int:
    """The newest event of a dispute: a decision counts only for what the reviewer saw."""
    return max(opinion.event_id for opinion in dispute.opinions)


def rate_hz(shared: Opened, episode_id: str) -> float:
    """The episode's frame rate; 1 where its file is gone."""
    found = shared.catalogue.episodes().get(episode_id)
    return found.entry.info.rate_hz if found else 1.0


def heard() -> None:
    """The player has sent a decision."""
    state = st.session_state
    message = last_message()
    if message is None or "dispute" not in state:
        return
    episode_id, event_id, shared, reviewer = state["dispute"]
    state["adjudication_attempt"] = state.get("adjudication_attempt", 0) + 1
    try:
        found = shared.catalogue.episodes().get(episode_id)
        said = read_message(message, found.entry.length if found else 1)
        if said.token != f"{episode_id}:{event_id}" or said.answer == SKIP:
            return
        still = {dispute.episode_id: newest(dispute) for dispute in shared.store.disputed()}
        if still.get(episode_id) != event_id:
            raise InputError("Not saved: somebody has decided or relabelled this episode meanwhile.")
        shared.store.adjudicate(
            episode_id, said.answer, reviewer, said.note, quality=said.quality, marks=said.marks
        )
        state.pop("adjudication_taken_back", None)
        state["adjudication_notice"] = f"Decided: {said.answer} · {task_of(shared, episode_id)}"
    except (InputError, Failure) as error:
        state["adjudication_problem"] = str(error)


def undo(shared: Opened, reviewer: str) -> None:
    """The key for undo: the reviewer's last decision is taken back, and the episode is in dispute again."""
    state = st.session_state
    try:
        event = shared.store.undo(reviewer, roles=DECISIONS)
        if event is None:
            return
        history = shared.store.history(event.episode_id)
    except (InputError, Failure) as error:
        state["adjudication_problem"] = str(error)
        return
    state["adjudication_taken_back"] = next(said for said in history if said.event_id == event.undoes)
    state["adjudication_first"] = event.episode_id
    state["adjudication_notice"] = f"Your decision is taken back: {task_of(shared, event.episode_id)}"


def task_of(shared: Opened, episode_id: str) -> str:
    """The task of an episode, or its id where its file is gone."""
    found = shared.catalogue.episodes().get(episode_id)
    return found.entry.info.task if found else episode_id
