"""The labelling page: one episode at a time, its film, and a key for every answer.

``recap label`` starts it, with the command that ``labeling_app.launch`` makes. All that lasts is in the label
store: a page that is closed, reloaded or killed loses nothing but a note that was not sent.
Text that people typed (tasks, names, notes) is shown as plain text, never as Markdown or HTML.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import streamlit as st

from labeling_app.driving import driving_spans, legend
from labeling_app.films import film_size, make_film
from labeling_app.identity import current_annotator
from labeling_app.labeling_queue import LabelingQueue, Ticket, refresh
from labeling_app.launch import is_loopback
from labeling_app.on_screen import (
    current_ticket,
    forget_skipped,
    leave,
    note_key,
    put_back,
    record,
    skip,
    undo,
)
from labeling_app.plain_text import plain
from pipeline.episode_file import EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.labels import LabelStore, StaleLease
from pipeline.workspace import Workspace

HEARTBEAT_S = 60
REFRESH_S = 60
HISTORY_LENGTH = 12
ALL_TASKS = "all tasks"
FILM_HEIGHT = 420
ANSWER_MARKS = {"success": ":green[**✓**]", "failure": ":red[**✗**]", "exclude": "**⊘**"}


def main() -> None:
    """Draws the page once; Streamlit runs it again after every click."""
    st.set_page_config("Label episodes", page_icon=":material/label:", layout="wide")
    workspace = opened_workspace()
    store = opened_store(workspace.labels_path)
    name = current_annotator()
    tasks = refreshed(str(workspace.root), store)
    if notice := st.session_state.pop("notice", None):
        st.toast(plain(notice))
    queue = LabelingQueue(workspace, store, name, chosen_task(name, tasks))
    ticket = current_ticket(queue)
    draw_progress(queue, tasks)
    if ticket is None:
        draw_nothing_left(queue)
    else:
        draw_episode(queue, ticket)
        keep_lease(queue)


def opened_workspace() -> Workspace:
    """The workspace that the command line names; stops the page with one line if there is none."""
    parser = argparse.ArgumentParser(prog="labeling_app")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    root = parser.parse_args(sys.argv[1:]).workspace.resolve()
    if not root.is_dir():
        st.error(f"There is no workspace at {plain(str(root))}: start with `recap label --workspace DIR`.")
        st.stop()
    return Workspace(root)


@st.cache_resource(show_spinner=False)
def opened_store(path: Path) -> LabelStore:
    """One label store for all pages that this server shows; it may be used from many threads."""
    return LabelStore(path)


@st.cache_data(ttl=REFRESH_S, show_spinner=False)
def refreshed(root: str, _store: LabelStore) -> dict[str, str]:
    """Looks for new episodes, at most every ``REFRESH_S`` seconds; episode id -> task."""
    return refresh(Workspace(Path(root)), _store)


def chosen_task(name: str, tasks: dict[str, str]) -> str | None:
    """The sidebar's head: who labels, and which task; ``None`` means all."""
    with st.sidebar:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(f"Labelling as {name}")
            if is_loopback(st.get_option("server.address")):
                st.button(":blue[not you?]", type="tertiary", on_click=leave)
        chosen = st.selectbox("Task", [ALL_TASKS, *sorted(set(tasks.values()))], on_change=put_back)
    return None if chosen == ALL_TASKS else chosen


def draw_progress(queue: LabelingQueue, tasks: dict[str, str]) -> None:
    """The rest of the sidebar: how far the queue is, and what this annotator said lately."""
    progress = queue.progress()
    done = progress.total - progress.unlabelled
    with st.sidebar:
        st.progress(done / max(1, progress.total), text=f"{done} of {progress.total} labelled")
        own = queue.own_labels(HISTORY_LENGTH)
        st.button(
            "Undo my last label",
            key="undo",
            shortcut="U",
            icon=":material/undo:",
            width="stretch",
            disabled=not own,
            on_click=undo,
            args=(queue,),
        )
        if own:
            st.caption("Your latest labels")
            for label in own:
                st.markdown(f"{ANSWER_MARKS[label.outcome]} {plain(tasks.get(label.episode_id, '?'))}")


def draw_nothing_left(queue: LabelingQueue) -> None:
    """The page when no episode is to be had."""
    progress = queue.progress()
    skipped = len(st.session_state.get("skipped", ()))
    if progress.total == 0:
        st.title("No episodes yet")
        st.write("They appear here as soon as they are recorded, by people or by `recap demo`.")
    elif progress.unlabelled == 0:
        st.title("All episodes are labelled")
        st.write("Thank you. New ones appear here as soon as they are recorded.")
    else:
        st.title("Nothing left for you")
        st.write(f"{progress.unlabelled} episodes have no label: skipped, with a colleague, or unreadable.")
    if skipped:
        st.button(f"Show the {skipped} that I skipped", type="primary", on_click=forget_skipped)
    if st.button("Look again", icon=":material/refresh:"):
        refreshed.clear()
        st.session_state["ticket"] = None
        st.rerun()


def draw_episode(queue: LabelingQueue, ticket: Ticket) -> None:
    """The question, the film, and the answers below it."""
    info = ticket.entry.info
    with st.container(gap=None):
        st.caption("Did the robot do this?")
        st.subheader(plain(info.task), anchor=False)
    try:
        with st.spinner("Making the film …"):
            film = make_film(ticket.entry, queue.workspace.cache / "films")
            with EpisodeReader(ticket.entry.path) as reader:
                spans = driving_spans(reader.sources.tolist(), info.rate_hz)
    except (InputError, Failure) as error:
        st.error(f"This film cannot be shown: {plain(str(error))}. Exclude the episode, or skip it.")
    else:
        width, height = film_size(film)
        shown_width = max(320, round(FILM_HEIGHT * width / height))
        st.video(film, loop=True, autoplay=True, muted=True, width=shown_width)
        st.markdown(legend(spans))
    if info.truncated:
        st.warning("The recording was cut short: the film may end before the attempt does.")
    draw_answers(queue, ticket)
    with st.expander("About this episode"):
        st.text(description(ticket))


def draw_answers(queue: LabelingQueue, ticket: Ticket) -> None:
    """A button and a key for every answer, and a note."""
    buttons = (
        ("success", ":green[**Success**]", "S", ":material/check_circle:", "The task is done at the end."),
        ("failure", ":red[**Failure**]", "F", ":material/cancel:", "The task is not done at the end."),
        ("exclude", "Exclude", "X", ":material/block:", "The recording is unusable; nobody learns from it."),
        ("skip", "Skip", "K", ":material/skip_next:", "You cannot tell; somebody else may."),
    )
    for column, (answer, label, key, icon, help_text) in zip(st.columns(4), buttons, strict=True):
        column.button(
            label,
            key=answer,
            shortcut=key,
            icon=icon,
            help=help_text,
            width="stretch",
            on_click=skip if answer == "skip" else record,
            args=(queue, ticket) if answer == "skip" else (queue, ticket, answer),
        )
    st.text_input(
        "Note",
        key=note_key(ticket),
        placeholder="a note, if something is worth saying",
        label_visibility="collapsed",
        max_chars=500,
    )
    st.caption("What counts is how it looks when the film ends, however long it took and whoever drove.")


def description(ticket: Ticket) -> str:
    """What is known of an episode, as plain lines."""
    info, entry = ticket.entry.info, ticket.entry
    lines = {
        "episode": entry.id,
        "recorded": info.created,
        "robot": info.robot,
        "operator": info.operator,
        "policy": info.policy_checkpoint or "none",
        "length": f"{entry.length / info.rate_hz:.1f} s, {entry.length} frames",
        "operator's own mark": info.operator_mark or "none",
    }
    return "\n".join(f"{name}: {' '.join(value.split())}" for name, value in lines.items())


@st.fragment(run_every=HEARTBEAT_S)
def keep_lease(queue: LabelingQueue) -> None:
    """Prolongs the lease while the page is open; shows another episode if it was lost all the same."""
    ticket: Ticket | None = st.session_state.get("ticket")
    if ticket is None:
        return
    try:
        st.session_state["ticket"] = queue.keep(ticket)
    except StaleLease:
        st.session_state["ticket"] = None
        st.session_state["notice"] = "This episode went to someone else meanwhile."
        st.rerun()


if __name__ == "__main__":  # as Streamlit runs it
    main()
