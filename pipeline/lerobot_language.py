"""Sub-tasks of a LeRobotDataset in LeRobot's language columns, which its recipes turn into training texts.

LeRobot (0.6 and later, ``lerobot.datasets.language``) keeps annotations beside the frames, in two columns of
the data tables. Here ``language_persistent`` has a row for each sub-task: style ``subtask``, role
``assistant``, the name as content, and the ``timestamp`` (s since the episode's start) of its first frame, to
the last bit that frame's own. A row holds until another of its style begins (``active_at``), and LeRobot has
no word for "ended". So every frame carries all rows of its episode, except that frames of which nobody knows
the sub-task lack those that began before: there LeRobot's renderer finds none, as it should. A reader that
looks at an episode's first frame only sees all rows. ``language_events`` is empty; LeRobot writes both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pipeline.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

PERSISTENT: Final = "language_persistent"
EVENTS: Final = "language_events"
LANGUAGE_COLUMNS: Final = (PERSISTENT, EVENTS)
SUBTASK_STYLE: Final = "subtask"
_ROLE: Final = "assistant"


class Subtask(NamedTuple):
    """What is done from frame ``start`` up to but without frame ``end`` of an episode."""

    name: str
    start: int
    end: int


Subtasks = Mapping[str, Sequence[Subtask]]
"""Those of each episode, by its id, in order; an episode that is not in it has none."""


def language_features() -> dict[str, dict[str, Any]]:
    """The two columns in the words of a dataset's ``meta/info.json``."""
    return {name: {"dtype": "language", "shape": (1,), "names": None} for name in LANGUAGE_COLUMNS}


def check_subtasks(subtasks: Subtasks, lengths: Mapping[str, int]) -> None:
    """Raises ``InputError`` unless each episode's have names and follow each other within its frames.

    ``lengths`` maps an episode's id to its number of frames.
    """
    for episode_id, found in subtasks.items():
        if episode_id not in lengths:
            raise InputError(f"there are sub-tasks of episode {episode_id}, which is not to be exported")
        before = 0
        for subtask in found:
            if not subtask.name.strip() or not before <= subtask.start < subtask.end <= lengths[episode_id]:
                raise InputError(
                    f"sub-task {subtask.name!r} of episode {episode_id}, frames {subtask.start} to "
                    f"{subtask.end}: each needs a name, and frames of the {lengths[episode_id]} that no "
                    "other has"
                )
            before = subtask.end


def language_columns(
    subtasks: Sequence[Subtask], timestamps: np.ndarray, schema: pa.Schema
) -> dict[str, pa.Array]:
    """Both columns of an episode of T frames, as ``schema`` types them; checked by :func:`check_subtasks`.

    ``timestamps`` (T,) float32, s, are the frames' own.
    """
    import pyarrow as pa  # here: commands that write no dataset do not wait for it

    length, count = len(timestamps), len(subtasks)
    starts = np.array([subtask.start for subtask in subtasks], dtype=np.int64)
    rows = _rows(subtasks, timestamps[starts].astype(np.float32), schema.field(PERSISTENT).type.value_type)
    began = np.searchsorted(starts, np.arange(length), side="right")
    known = np.zeros(length, dtype=bool)
    for subtask in subtasks:
        known[subtask.start : subtask.end] = True
    first = np.where(known, 0, began)  # of the rows that a frame carries; all after it are there
    sizes = count - first
    ends = np.cumsum(sizes)
    taken = np.arange(int(sizes.sum())) - np.repeat(ends - sizes - first, sizes)
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    none = pa.array(np.zeros(length + 1), pa.int32())
    events = schema.field(EVENTS).type
    return {
        PERSISTENT: pa.ListArray.from_arrays(
            offsets, rows.take(pa.array(taken)), type=schema.field(PERSISTENT).type
        ),
        EVENTS: pa.ListArray.from_arrays(none, pa.nulls(0, events.value_type), type=events),
    }


def _rows(subtasks: Sequence[Subtask], timestamps: np.ndarray, kind: pa.StructType) -> pa.StructArray:
    """One row a sub-task; what it does not say is null."""
    import pyarrow as pa

    count = len(subtasks)
    said: dict[str, Any] = {
        "role": [_ROLE] * count,
        "content": [subtask.name for subtask in subtasks],
        "style": [SUBTASK_STYLE] * count,
        "timestamp": timestamps,
    }
    fields = list(kind)
    # pyarrow makes no array of its JSON type from a list: nulls are all that is needed.
    parts = [pa.array(said[f.name], f.type) if f.name in said else pa.nulls(count, f.type) for f in fields]
    return pa.StructArray.from_arrays(parts, fields=fields)
