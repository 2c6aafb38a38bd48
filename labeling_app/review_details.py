"""Below the film on the review page: what people said of the episode, and thumbnails that open others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import streamlit as st

from labeling_app.identity import Person
from labeling_app.opened import Opened
from labeling_app.plain_text import plain
from labeling_app.scoring_runs import Moment
from pipeline.episode_file import EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.guarded_reading import guarded_map
from pipeline.label_state import EpisodeState, resolve, standing
from pipeline.labels import OUTCOMES
from pipeline.workspace import IndexedEpisode

THUMBNAIL_WIDTH = 240
ROLE_WORDS = {
    "label": "label",
    "second": "independent answer",
    "answer": "answer to a gold episode",
    "adjudication": "reviewer's decision",
    "gold": "gold, by a reviewer",
}
WORDS = {"success": ":green[**✓ success**]", "failure": ":red[**✗ failure**]", "exclude": "**⊘ exclude**"}


def draw_labels(shared: Opened, person: Person, item: IndexedEpisode) -> None:
    """What was said of the episode, newest last; for reviewers, as others may still have to label it."""
    if problem := st.session_state.pop("review_problem", None):
        st.error(plain(problem))
    if not person.reviewer:
        st.caption("Other people's labels are shown to reviewers only.")
        return
    info = item.entry.info
    events = shared.store.history(item.entry.id)
    with st.container(horizontal=True, vertical_alignment="center"):
        said = plain(info.operator_mark or "nothing")
        st.markdown(f"Label: {holding_words(resolve(events))} · the operator said at recording: {said}")
        with st.popover("Relabel", icon=":material/edit:"):
            outcome = st.segmented_control("Outcome", OUTCOMES, default="success", key="relabel_outcome")
            note = st.text_input("Note", max_chars=500, key="relabel_note")
            for label, gold in (("Set this label", False), ("Make it a gold episode", True)):
                st.button(
                    label,
                    key=f"relabel-{gold}",
                    disabled=outcome is None,
                    on_click=relabel,
                    args=(shared, person.name, item.entry.id, outcome or "", note),
                    kwargs={"gold": gold},
                )
    stand = {event.event_id for event in standing(events)}
    for event in (event for event in events if event.undoes is None):
        said = WORDS.get(event.outcome or "", "no label")
        undone = "" if event.event_id in stand else " · **taken back**, holds no more"
        quality = f" · {event.quality}" if event.quality else ""
        note = f" · {plain(event.note)}" if event.note else ""
        when = event.created_at[:16].replace("T", " ")
        st.caption(
            f"{said}{quality} · {plain(event.annotator)} · {ROLE_WORDS[event.role]} · {when}{note}{undone}"
        )


def holding_words(state: EpisodeState) -> str:
    """The outcome that holds and on whose word, as Markdown."""
    if state.name == "disputed":
        return "**in dispute** (people differ: none holds until a reviewer decides)"
    if state.outcome is None:
        return "**none yet**"
    people = len(state.opinions)
    why = {
        "single": "one person",
        "agreed": f"{people} people agree",
        "adjudicated": "a reviewer decided",
        "gold": "gold: a reviewer is certain",
    }
    return f"{WORDS[state.outcome]} ({why[state.name]})"


def relabel(shared: Opened, reviewer: str, episode_id: str, outcome: str, note: str, *, gold: bool) -> None:
    """A reviewer's word, by the rule that fits the episode's state."""
    try:
        if gold:
            shared.store.set_gold(episode_id, outcome, reviewer, note)
        elif shared.store.state(episode_id) in {"disputed", "adjudicated", "gold"}:
            shared.store.adjudicate(episode_id, outcome, reviewer, note)
        else:
            shared.store.set(episode_id, outcome, reviewer, note)
    except (InputError, Failure) as error:
        st.session_state["review_problem"] = str(error)


def draw_moments(shared: Opened, found: Sequence[Moment], name: str) -> None:
    """Thumbnails in a row; each opens its episode at its frame."""
    columns = st.columns(max(len(found), 1))
    pictures = thumbnails(
        tuple((str(shared.catalogue.find(moment.episode_id).entry.path), moment.frame) for moment in found)
    )
    for number, (column, moment, picture) in enumerate(zip(columns, found, pictures, strict=True)):
        with column:
            if picture is None:
                st.caption("unreadable")
            else:
                st.image(picture, width="stretch")
            rate = shared.catalogue.find(moment.episode_id).entry.info.rate_hz
            st.button(
                f"{moment.advantage:+.3f} at {moment.frame / rate:.1f} s",
                key=f"{name}-{number}",
                width="stretch",
                help=plain(moment.episode_id),
                on_click=partial(open_moment, moment),
            )


def open_moment(moment: Moment) -> None:
    """A click on a thumbnail: its episode is shown, at its frame."""
    state = st.session_state
    state["reviewed"] = (moment.episode_id, moment.frame)
    state["review_clicks"] = state.get("review_clicks", 0) + 1


@st.cache_data(ttl=600, max_entries=64, show_spinner=False)
def thumbnails(wanted: tuple[tuple[str, int], ...]) -> list[bytes | None]:
    """Small JPEG pictures of (episode file, frame), from its first camera; ``None`` where one is damaged."""
    results = guarded_map(thumbnail, wanted)
    return [None if isinstance(result, InputError) else result for _, result in results]


def thumbnail(wanted: tuple[str, int]) -> bytes:
    """One picture as JPEG; runs in a guarded child, as the file may be damaged."""
    path, frame = wanted
    with EpisodeReader(Path(path)) as reader:
        image = reader.image(reader.info.cameras[0], frame)
    height = round(image.shape[0] * THUMBNAIL_WIDTH / image.shape[1])
    small = cv2.resize(image, (THUMBNAIL_WIDTH, height), interpolation=cv2.INTER_AREA)
    encoded, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise InputError(f"{path}: frame {frame} cannot be drawn")
    return jpeg.tobytes()
