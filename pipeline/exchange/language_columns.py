"""Sub-tasks in the language columns of a LeRobotDataset, as ``lerobot-annotate`` or our export wrote them.

What the columns are is described in :mod:`pipeline.lerobot_language`. A frame's sub-task is what LeRobot's
``active_at(t, style=subtask)`` gives for it: of the rows that the frame carries, the one that began last, at
the frame's time or before; a row without words ends what went before it. Read with pyarrow alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.lerobot_language import EVENTS, PERSISTENT, SUBTASK_STYLE, Subtask

UNTIMED = "subtask without a time"
"""What is said of a sub-task of which nobody knows when it begins, in place of its style."""

_LATE_S = 1e-3
"""How much later than a frame its sub-task may begin: writers compute times in other precisions."""


def read_language(table: Any, timestamps: np.ndarray | None) -> tuple[tuple[Subtask, ...], tuple[str, ...]]:
    """The sub-tasks of an episode's rows, in order, and the styles of what is left out of them, sorted.

    ``table`` has the episode's rows in order; ``timestamps`` (T,) are theirs in s since its start. A sub-task
    without a time of its own is left out, as ``UNTIMED``. Raises ``InputError`` for columns of another form.
    """
    subtasks: tuple[Subtask, ...] = ()
    others: set[str] = set()
    for column in (PERSISTENT, EVENTS):
        if column not in table.column_names:
            continue
        frames, rows = _rows(table.column(column), column)
        styles = [row.get("style") for row in rows]
        others |= {str(style or "speech") for style in styles if style != SUBTASK_STYLE}
        if column == PERSISTENT and timestamps is not None:
            times = np.array([_time(row) for row in rows], dtype=np.float64)
            chosen = [i for i, style in enumerate(styles) if style == SUBTASK_STYLE]
            timed = [i for i in chosen if np.isfinite(times[i])]
            others |= {UNTIMED} if len(timed) < len(chosen) else set()
            subtasks = _runs([rows[i] for i in timed], [frames[i] for i in timed], times[timed], timestamps)
    return subtasks, tuple(sorted(others))


def _rows(column: Any, name: str) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Each different row of a column of lists, and which frames carry it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = lists.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if pa.types.is_null(kind) or (is_list and pa.types.is_null(kind.value_type)):
        return [], []
    if not is_list or not pa.types.is_struct(kind.value_type):
        raise InputError(f"column {name!r} holds no lists of annotations: it is damaged")
    frames, values = pc.list_parent_indices(lists).to_numpy(), lists.flatten()
    wanted = [f for f in ("role", "content", "style", "timestamp") if kind.value_type.get_field_index(f) >= 0]
    flat = pa.Table.from_arrays([values.field(field) for field in wanted], names=wanted)
    # An episode has a handful of rows, which every frame repeats.
    counted = flat.append_column("frames", pa.array(frames)).group_by(wanted, use_threads=False)
    found = counted.aggregate([("frames", "list")]).to_pylist()
    return [np.asarray(row.pop("frames_list"), dtype=np.int64) for row in found], found


def _time(row: dict[str, Any]) -> float:
    """When an annotation begins, s; nan where it does not say."""
    try:
        return float(row["timestamp"])
    except (KeyError, TypeError, ValueError):
        return float("nan")


def _runs(
    rows: list[dict[str, Any]], frames: list[np.ndarray], times: np.ndarray, timestamps: np.ndarray
) -> tuple[Subtask, ...]:
    """What holds in each frame, as runs: two rows of the same words stay two.

    ``times`` (S,), s, are the rows' own.
    """
    active = np.full(len(timestamps), -1, dtype=np.int64)
    for i in np.argsort(times, kind="stable").tolist():  # later ones go over earlier ones
        reached = frames[i][timestamps[frames[i]] >= times[i] - _LATE_S]
        active[reached] = i
    bounds = [0, *(np.flatnonzero(np.diff(active)) + 1).tolist(), len(active)]
    names = [" ".join(str(row.get("content") or "").split()) for row in rows]
    return tuple(
        Subtask(names[active[start]], start, end)
        for start, end in pairwise(bounds)
        if start < end and active[start] >= 0 and names[active[start]]
    )
