"""The sub-tasks that an imported episode came with, as the label page proposes them."""

from __future__ import annotations

from typing import Any

from labeling_app.messages import LONGEST_MARK_TEXT, MOST_MARKS
from pipeline.label_types import Mark
from pipeline.segment_runs import proposed_segments


def proposals(extra: dict[str, Any], length: int) -> tuple[tuple[Mark, ...], str]:
    """What of them an answer can be saved with, and what the page says of them; ``""`` where there are none.

    ``extra`` is the episode's, ``length`` its frames.
    """
    came = proposed_segments(extra, length)
    short = [mark for mark in came if len(mark.text) <= LONGEST_MARK_TEXT]
    long = len(came) - len(short)
    names = f"{long} with names of over {LONGEST_MARK_TEXT} characters"
    if not came:
        return (), ""
    if not short:
        return (), f"Its sub-tasks cannot be shown: the recording came with {names}."
    if len(short) > MOST_MARKS:
        which = f"The first {MOST_MARKS} of {len(came)} sub-tasks"
        if long:
            which += f", without {names},"
    else:
        which = f"{len(short)} of {len(came)} sub-tasks, without {names}," if long else "Its sub-tasks"
    said = f"{which} came with the recording: correct them, since your answer says that they are right."
    return tuple(short[:MOST_MARKS]), said
