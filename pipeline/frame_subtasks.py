"""Which sub-task each frame belongs to: from the segments that people marked to the frames of training.

The segments are those of the label that holds, as a frozen snapshot has them: where several people agree,
those of the first of them, by name, who marked anything (:mod:`pipeline.label_snapshot`). A segment reaches
from its first frame up to but without its end frame. What is written is compared without case and with single
spaces. A frame without a segment has no known sub-task, and neither has one that two segments of different
sub-tasks claim; what lies beyond an episode's end counts for nothing. :func:`segment_faults` names both.

An action chunk that runs past the end of its sub-task is left whole: the policy says its sub-task anew for
every chunk, and acts on what it sees then; pi0.5 does not cut either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.label_snapshot import SnapshotRow
from pipeline.label_types import Mark
from pipeline.subtask_prompts import UNKNOWN, subtask_name

_CLAIMED_TWICE = -2
_MOST_NAMES = np.iinfo(np.int16).max


@dataclass(frozen=True)
class FrameSubtasks:
    """The sub-task of each of a table's frames.

    ``names`` of S sub-tasks, which differ; ``codes`` (N,) int16: a name's place among them, or -1 where the
    sub-task is not known. Raises ``InputError`` for anything else.
    """

    names: tuple[str, ...]
    codes: np.ndarray

    def __post_init__(self) -> None:
        """Checks names and codes."""
        plain = [subtask_name(name) for name in self.names]
        if not all(plain) or len(set(plain)) != len(plain) or len(plain) > _MOST_NAMES:
            raise InputError(f"sub-tasks are {list(self.names)}: each needs a name of its own")
        if self.codes.ndim != 1 or self.codes.dtype != np.int16:
            raise InputError(
                f"sub-tasks of frames are {self.codes.dtype} of shape {self.codes.shape}: give (N,) int16"
            )
        if len(self.codes) and not UNKNOWN <= self.codes.min() <= self.codes.max() < len(plain):
            codes = f"from {self.codes.min()} to {self.codes.max()}"
            raise InputError(f"sub-tasks of frames go {codes}, there are {len(plain)}")

    def known_as(self, names: Sequence[str]) -> FrameSubtasks:
        """The same frames under the numbers of ``names``; frames of any other sub-task become unknown."""
        place = {subtask_name(name): i for i, name in enumerate(names)}
        numbers = [place.get(subtask_name(name), UNKNOWN) for name in self.names]
        # The last one is what -1 stands for.
        translated = np.array([*numbers, UNKNOWN], dtype=np.int16)[self.codes]
        return FrameSubtasks(tuple(names), translated)

    def counts(self) -> dict[str, int]:
        """How many frames each sub-task has."""
        found = np.bincount(self.codes[self.codes != UNKNOWN], minlength=len(self.names))
        return dict(zip(self.names, found.tolist(), strict=True))


def labelled_subtasks(table: FrameTable, rows: Sequence[SnapshotRow]) -> FrameSubtasks:
    """The sub-tasks that people marked in the episodes of ``table``, whose rows of the snapshot these are.

    Raises ``InputError`` for rows of other episodes, or of other lengths.
    """
    found = [(row.episode_id, row.length) for row in rows]
    if found != list(zip(table.episode_ids, table.lengths.tolist(), strict=True)):
        raise InputError("the labels are of other episodes than the frames: freeze them again")
    return marked_subtasks(rows)


def marked_subtasks(rows: Sequence[SnapshotRow]) -> FrameSubtasks:
    """The same for all frames of these episodes, one after the other, without the frames themselves."""
    names = labelled_names(rows)
    codes = [segment_codes(row.marks, row.length, names) for row in rows]
    return FrameSubtasks(names, np.concatenate([np.empty(0, dtype=np.int16), *codes]))


def labelled_names(rows: Iterable[SnapshotRow]) -> tuple[str, ...]:
    """The names of all segments within these episodes, each once, in the order of the alphabet."""
    return tuple(
        sorted({subtask_name(m.text) for row in rows for m in _segments(row) if m.start_frame < row.length})
    )


def segment_codes(marks: Iterable[Mark], length: int, names: Sequence[str]) -> np.ndarray:
    """The place among ``names`` of each of an episode's frames, (length,) int16; -1: see the module."""
    codes = np.full(length, UNKNOWN, dtype=np.int16)
    place = {subtask_name(name): i for i, name in enumerate(names)}
    for mark in marks:
        if mark.kind != "segment":
            continue
        code = place.get(subtask_name(mark.text), _CLAIMED_TWICE)
        claimed = codes[mark.start_frame : mark.end_frame]
        claimed[:] = np.where((claimed == UNKNOWN) | (claimed == code), code, _CLAIMED_TWICE)
    return np.maximum(codes, UNKNOWN)


def segment_faults(rows: Iterable[SnapshotRow]) -> str:
    """One line where segments overlap with another sub-task's or reach beyond their episode; else empty."""
    faults = [(row, fault) for row in rows if (fault := _fault(row))]
    if not faults:
        return ""
    row, fault = faults[0]
    more = f", and {len(faults) - 1} more episodes" if len(faults) > 1 else ""
    return (
        f"segments of episode {row.episode_id} {fault}{more}: frames that two sub-tasks claim train without "
        "one; mark the segments again ('recap label')"
    )


def _fault(row: SnapshotRow) -> str:
    segments = _segments(row)
    beyond = [mark for mark in segments if mark.end_frame > row.length]
    if beyond:
        mark = beyond[0]
        return f"reach beyond its {row.length} frames ({mark.text.strip()!r} ends at {mark.end_frame})"
    last: Mark | None = None  # of those before, the one that ends last
    for mark in segments:
        begins_within = last is not None and mark.start_frame < last.end_frame
        if last is not None and begins_within and subtask_name(mark.text) != subtask_name(last.text):
            both = f"{last.text.strip()!r} and {mark.text.strip()!r}"
            # The labelling app counts from 1, files and 'recap label set --mark' from 0.
            return f"overlap ({both} at frame {mark.start_frame}, the app's {mark.start_frame + 1})"
        if last is None or mark.end_frame > last.end_frame:
            last = mark
    return ""


def _segments(row: SnapshotRow) -> list[Mark]:
    found = [mark for mark in row.marks if mark.kind == "segment"]
    return sorted(found, key=lambda mark: (mark.start_frame, mark.end_frame))
