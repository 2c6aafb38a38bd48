"""The threshold of a task's advantages: a histogram, a slider, and how many frames it would make positive."""

from __future__ import annotations

import numpy as np
import streamlit as st

from labeling_app.charts import DRIVER_COLOURS, SLIDER_COLOUR, histogram_chart
from labeling_app.driving import DRIVERS
from labeling_app.scoring_runs import TaskFrames, free_advantages, positive_counts
from pipeline.episode import Source

BINS = 48
DEFAULT_POSITIVE = 0.3  # where no threshold was recorded: the share that the loop chooses


def draw_threshold(frames: TaskFrames, recorded: float | None, slider: str) -> None:
    """The panel. Moving the slider (of that name) previews; it changes nothing that is stored."""
    free = free_advantages(frames)
    if not len(free):
        st.info("Every scored frame of this task is a correction: they are positive whatever the threshold.")
        return
    low, high = float(np.floor(free.min() * 100) / 100), float(np.ceil(free.max() * 100) / 100)
    usual = recorded if recorded is not None else float(np.quantile(free, 1 - DEFAULT_POSITIVE))
    high = max(high, low + 0.01)
    threshold = st.slider(
        "Advantage threshold",
        low,
        high,
        min(max(usual, low), high),
        step=(high - low) / 200,
        format="%.3f",
        key=slider,
        help="A preview: what is stored does not change. `recap improve` sets the thresholds.",
    )
    edges = np.linspace(low, high, BINS + 1)
    counts = {
        DRIVERS[source].words: np.histogram(frames.advantage[frames.source == source], edges)[0]
        for source in (Source.TELEOP, Source.POLICY)
        if (frames.source == source).any()
    }
    st.html(legend(list(counts), recorded))
    st.altair_chart(histogram_chart(edges, counts, threshold, recorded), height=170)
    rows = []
    for source, (total, positive) in positive_counts(frames, threshold).items():
        words = "corrected (always)" if source is Source.INTERVENTION else DRIVERS[source].words
        rows.append(
            {
                "frames": words,
                "all": total,
                "positive": positive,
                "%": 100 * positive / total,
            }
        )
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            "frames": st.column_config.TextColumn(width=120),
            "%": st.column_config.NumberColumn(format="%.0f %%"),
        },
        row_height=30,
    )
    above = float((free > threshold).mean())
    st.caption(
        f"{above:.0%} of the frames that a policy or person drove, corrections aside, lie above. "
        f"Recorded: {text_of(recorded)}."
    )


def legend(drivers: list[str], recorded: float | None) -> str:
    """What the colours and lines of the histogram mean, as HTML; nobody's own words are in it."""
    entries = [f"<span style='color:{DRIVER_COLOURS[driver]}'>■</span> {driver}" for driver in drivers]
    entries.append(f"<span style='color:{SLIDER_COLOUR}'>┃</span> the slider")
    if recorded is not None:
        entries.append("<span style='color:#868e96'>┆</span> recorded")
    return f"<small>{' &nbsp; '.join(entries)}</small>"


def text_of(recorded: float | None) -> str:
    """The recorded threshold as text."""
    return "none" if recorded is None else f"{recorded:.3f}"
