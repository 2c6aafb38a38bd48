"""The sidebar's controls of the queue: which episodes, in which order, and how much is left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median

import streamlit as st

from labeling_app.opened import Opened
from pipeline.labels import LabelEvent, QueueFilter

PAUSE_S = 600.0  # whoever was away so long did something else
FEWEST_GAPS = 3

ALL_TASKS = "all tasks"
ANYBODY = "anybody"
ORDER_WORDS = {
    "oldest": "oldest first",
    "task": "task by task",
    "helpful": "where a label helps most",
}
DRIVER_WORDS = {
    ANYBODY: "whoever drove",
    "teleop": "a person drove",
    "policy": "the policy drove alone",
    "corrected": "a person corrected",
}


def chosen_filter(shared: Opened) -> QueueFilter:
    """Draws the controls and returns what they say; a visit to another page does not lose it."""
    before: QueueFilter = st.session_state.get("filter", QueueFilter())
    tasks = [ALL_TASKS, *shared.catalogue.tasks()]
    task = st.selectbox(
        "Task",
        tasks,
        index=tasks.index(before.task) if before.task in tasks else 0,
        key="task",
    )
    orders = list(ORDER_WORDS)
    order = st.selectbox(
        "Order",
        orders,
        index=orders.index(before.order),
        format_func=ORDER_WORDS.__getitem__,
        key="order",
        help="A label helps most where the value model disagrees with what is known, or is unsure.",
    )
    drivers = list(DRIVER_WORDS)
    driver = st.selectbox(
        "Only where",
        drivers,
        index=drivers.index(before.driver or ANYBODY),
        format_func=DRIVER_WORDS.__getitem__,
        key="driver",
    )
    chosen = QueueFilter(
        task=None if task == ALL_TASKS else task, order=order, driver=None if driver == ANYBODY else driver
    )
    st.session_state["filter"] = chosen
    return chosen


def time_left(left: int, own: Sequence[LabelEvent]) -> str:
    """How much there is for this person to do, in words, and how long it takes them at their latest pace.

    ``own``: this person's newest labels, newest first.
    """
    if left == 0:
        return "Nothing is left for you."
    pace_s = seconds_per_label(own)
    if pace_s is None:
        return f"{left} to go"
    minutes = left * pace_s / 60
    words = f"{max(1, round(minutes))} min" if minutes < 90 else f"{minutes / 60:.0f} h"
    return f"{left} to go: about {words} at your pace"


def seconds_per_label(own: Sequence[LabelEvent]) -> float | None:
    """The median time between a person's labels, pauses aside; ``None`` before there are enough of them."""
    times = [datetime.fromisoformat(event.created_at).timestamp() for event in own]
    gaps = [later - earlier for later, earlier in pairwise(times) if later - earlier < PAUSE_S]
    return median(gaps) if len(gaps) >= FEWEST_GAPS else None
