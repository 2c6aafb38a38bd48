"""Segments that people marked, as sub-tasks that follow each other; and back, as marks to propose to people.

Which frames have which sub-task is decided as for a policy's training (:mod:`pipeline.frame_subtasks`): names
without case, frames that two sub-tasks claim or that lie beyond the episode have none. Where a segment begins
as another of the same name ends, they stay two; where they overlap they become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.frame_subtasks import segment_codes
from pipeline.label_types import Mark
from pipeline.lerobot_language import Subtask
from pipeline.subtask_prompts import UNKNOWN, subtask_name

ORIGIN = "import"
"""Where an imported episode's ``extra`` says what it came with, among that its sub-tasks."""

SUBTASKS = "subtasks"


def segment_runs(marks: Iterable[Mark], length: int) -> tuple[Subtask, ...]:
    """The sub-tasks of an episode of that many frames, in order; marks of other kinds say nothing of them."""
    segments = [mark for mark in marks if mark.kind == "segment"]
    names = sorted({subtask_name(mark.text) for mark in segments})
    codes = segment_codes(segments, length, names)
    cuts = np.flatnonzero(np.diff(codes)) + 1
    begin = {m.start_frame for m in segments if 0 < m.start_frame < length and not _goes_on(m, segments)}
    bounds = sorted({0, length, *cuts.tolist(), *begin})
    return tuple(
        Subtask(names[codes[start]], start, end) for start, end in pairwise(bounds) if codes[start] != UNKNOWN
    )


def subtask_note(subtasks: Sequence[Subtask]) -> dict[str, Any]:
    """What an imported episode's ``extra[ORIGIN]`` says of its sub-tasks; nothing where it has none."""
    return {SUBTASKS: [list(subtask) for subtask in subtasks]} if subtasks else {}


def proposed_segments(extra: dict[str, Any], length: int) -> tuple[Mark, ...]:
    """The sub-tasks that an episode of ``length`` frames was imported with, as marks that nobody has checked.

    None where it was not imported, or what it says cannot be marks of it.
    """
    origin = extra.get(ORIGIN)
    found = origin.get(SUBTASKS) if isinstance(origin, dict) else None
    try:
        marks = tuple(Mark("segment", start, end, name) for name, start, end in found or ())
    except (InputError, TypeError, ValueError):
        return ()
    return marks if all(mark.end_frame <= length for mark in marks) else ()


def _goes_on(mark: Mark, segments: Sequence[Mark]) -> bool:
    """Whether another segment of the same sub-task covers the first frame of this one and the one before."""
    name, start = subtask_name(mark.text), mark.start_frame
    return any(s.start_frame < start < s.end_frame and subtask_name(s.text) == name for s in segments)
