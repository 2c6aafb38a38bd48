"""The review page: a film with value and advantage, the threshold, and the moments that stand out."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from labeling_app.identity import Person
from labeling_app.opened import Opened
from labeling_app.plain_text import plain
from labeling_app.player import curve, film_data, show_player
from labeling_app.review_details import draw_labels, draw_moments
from labeling_app.scoring_runs import (
    ADVANTAGE,
    VALUE,
    ScoringRun,
    TaskFrames,
    episode_scores,
    moments,
    scoring_runs,
    task_frames,
)
from labeling_app.threshold_panel import draw_threshold
from pipeline.errors import InputError
from pipeline.workspace import IndexedEpisode

MOST_CHOICES = 300  # episodes in the list; the others are reached by their moments or the page's address
MOMENTS = 6


def draw(shared: Opened, person: Person) -> None:
    """Draws the page once: the film on the left, the threshold beside it, moments below."""
    tasks = shared.catalogue.tasks()
    runs = scoring_runs(shared.workspace)
    if not tasks:
        st.title("No episodes yet")
        return
    take_from_address(shared)
    left, right = st.columns([5, 2], gap="medium")
    with right:
        task = st.selectbox("Task", tasks, index=remembered_task(tasks), key="review_task")
        run = chosen_run(runs)
    episodes = [item for item in shared.catalogue.episodes().values() if item.entry.info.task == task]
    frames = (
        None
        if run is None
        else scored_frames(run.name, run.published, task, len(episodes), _shared=shared, _episodes=episodes)
    )
    with left:
        item = chosen_episode(episodes, frames)
        st.subheader(plain(task), anchor=False)
        draw_film(shared, item, run, threshold_shown(task, run))
        draw_labels(shared, person, item)
    with right:
        if run is None or frames is None or not len(frames.advantage):
            st.info("No advantages of this task yet: they come with `recap improve`.")
        else:
            draw_threshold(frames, run.thresholds.get(task), slider_of(task))
    if frames is not None and len(frames.advantage):
        with st.container(gap="small"):
            st.markdown("**Worst moments** · the least advantage, one an episode")
            draw_moments(shared, moments(frames, MOMENTS, best=False), "worst")
            st.markdown("**Best moments** · the most advantage, one an episode")
            draw_moments(shared, moments(frames, MOMENTS, best=True), "best")


def take_from_address(shared: Opened) -> None:
    """Opens the episode and frame that the page's address names, once."""
    wanted = st.query_params.get("episode")
    if wanted is None or st.session_state.get("review_address") == wanted:
        return
    st.session_state["review_address"] = wanted
    found = shared.catalogue.episodes().get(wanted)
    if found is not None:
        st.session_state["reviewed"] = (wanted, None)
        st.session_state["review_task_before"] = found.entry.info.task


def remembered_task(tasks: list[str]) -> int:
    """Which task was looked at before a visit to another page."""
    before = st.session_state.get("review_task_before")
    return tasks.index(before) if before in tasks else 0


def chosen_run(runs: list[ScoringRun]) -> ScoringRun | None:
    """The scoring run to look at: the newest, unless there are several and another is picked."""
    if len(runs) < 2:
        return runs[0] if runs else None
    by_name = {run.name: run for run in runs}
    return by_name[st.selectbox("Scoring run, newest first", list(by_name), key="review_run")]


@st.cache_data(ttl=300, max_entries=4, show_spinner="Reading advantages …")
def scored_frames(
    run: str, published: float, task: str, count: int, *, _shared: Opened, _episodes: list[IndexedEpisode]
) -> TaskFrames:
    """All scored frames of a task, read again when the run was ``published`` anew or has other episodes."""
    return task_frames(_shared.workspace, run, _episodes)


def chosen_episode(episodes: list[IndexedEpisode], frames: TaskFrames | None) -> IndexedEpisode:
    """The episode opened by a click, or else the one with the worst moment, or else the newest."""
    by_id = {item.entry.id: item for item in episodes}
    opened_id, _ = st.session_state.get("reviewed", (None, None))
    if opened_id not in by_id:
        worst = moments(frames, 1, best=False) if frames is not None and len(frames.advantage) else []
        opened_id = worst[0].episode_id if worst else episodes[-1].entry.id
        st.session_state["reviewed"] = (opened_id, worst[0].frame if worst else None)
    choices = [item.entry.id for item in reversed(episodes[-MOST_CHOICES:])]
    if opened_id not in choices:
        choices.insert(0, str(opened_id))
    picked = st.selectbox(
        "Episode", choices, index=choices.index(str(opened_id)), format_func=lambda id_: name_of(by_id[id_])
    )
    if picked != opened_id:
        st.session_state["reviewed"] = (picked, None)
    st.session_state["review_task_before"] = by_id[picked].entry.info.task
    return by_id[picked]


def name_of(item: IndexedEpisode) -> str:
    """An episode in one line of a list."""
    info = item.entry.info
    seconds = item.entry.length / info.rate_hz
    return " · ".join((item.entry.id, info.created[:16].replace("T", " "), f"{seconds:.1f} s", item.driver))


def slider_of(task: str) -> str:
    """The name of the threshold's slider: one for each task, as their advantages differ."""
    return f"threshold of {task}"


def threshold_shown(task: str, run: ScoringRun | None) -> float | None:
    """Where the slider is; the recorded threshold before it was moved."""
    recorded = None if run is None else run.thresholds.get(task)
    return st.session_state.get(slider_of(task), recorded)


def draw_film(shared: Opened, item: IndexedEpisode, run: ScoringRun | None, threshold: float | None) -> None:
    """The player with the curves of the chosen run under the film, and the threshold as a dashed line."""
    _, frame = st.session_state.get("reviewed", (None, None))
    try:
        with st.spinner("Making the film …"):
            film = film_data(shared.films.film(item.entry))
    except InputError as error:
        film = film_data(None, f"This film cannot be shown: {error}")
    scores = {} if run is None else episode_scores(shared.workspace, run.name, item.entry.id)
    shown = curves(scores, threshold)
    data: dict[str, Any] = {
        **film,
        "mode": "review",
        "episode": item.entry.id,
        "visit": 0,
        "token": "",
        "attempt": 0,
        "curves": shown,
        "hint": f"Drag along the {'curves' if shown else 'bar'} to look at a moment; "
        "the arrow keys go frame by frame.",
        "frame": frame,
        "seek": st.session_state.get("review_clicks", 0),
        "marks": [
            {"kind": m.kind, "start_frame": m.start_frame, "end_frame": m.end_frame, "text": m.text}
            for m in shared.store.marks(item.entry.id)
        ],
        "quality": None,
        "note": "",
    }
    show_player(data)


def curves(scores: dict[str, np.ndarray], threshold: float | None) -> list[dict[str, Any]]:
    """The curves of an episode's scores: its value from −1 to 0, its advantage around its threshold."""
    shown = []
    if VALUE in scores:
        values = scores[VALUE]
        low, high = min(-1.0, float(values.min())), max(0.0, float(values.max()))
        shown.append(curve("value", values.tolist(), low=low, high=high))
    if ADVANTAGE in scores:
        values = scores[ADVANTAGE]
        largest = max(float(np.abs(values).max()), abs(threshold or 0.0), 1e-6) * 1.05
        shown.append(curve("advantage", values.tolist(), low=-largest, high=largest, threshold=threshold))
    return shown
