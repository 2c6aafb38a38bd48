"""The sub-tasks that people marked, of the episodes that are to be exported."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.counted_words import counted
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.frame_subtasks import segment_faults
from pipeline.labels import LabelStore, freeze
from pipeline.lerobot_language import Subtask, Subtasks
from pipeline.segment_runs import segment_runs


def exported_subtasks(labels: Path, entries: Sequence[EpisodeEntry]) -> tuple[Subtasks, list[str]]:
    """Each episode's sub-tasks, and what a person should know of them, in lines; ``labels`` is the store.

    Raises ``InputError`` where nobody marked any, or no frame is left to those that people marked.
    """
    found, faults = _marked(labels, entries)
    if not found and faults:
        raise InputError(f"--subtasks: no frame of these episodes has a sub-task: {faults}")
    if not found:
        raise InputError(
            "--subtasks: no label of these episodes has a segment: mark some in the labelling app (B and E), "
            "or leave --subtasks away"
        )
    segments = sum(len(subtasks) for subtasks in found.values())
    lines = [f"sub-tasks: {segments} in {len(found)} of {len(entries)} episodes"]
    return found, [*lines, faults] if faults else lines


def subtasks_left_out(labels: Path, entries: Sequence[EpisodeEntry]) -> list[str]:
    """A line that says how to export the sub-tasks that people marked; none where they did not."""
    found, faults = _marked(labels, entries)
    if not found:
        return [f"no sub-task is in it, and --subtasks would write none: {faults}"] if faults else []
    episodes = counted(len(found), "episode")
    return [f"the sub-tasks of {episodes} are not in it: --subtasks writes them, for LeRobot 0.6 or newer"]


def _marked(labels: Path, entries: Sequence[EpisodeEntry]) -> tuple[dict[str, tuple[Subtask, ...]], str]:
    """The sub-tasks of each episode that has any, and a line on segments that are at fault, or ``""``.

    The labels are frozen as for a training, into a folder that goes away, so that both learn from the same
    segments.
    """
    if not labels.exists():
        return {}, ""
    with LabelStore(labels) as store, tempfile.TemporaryDirectory(prefix="recap-labels-") as folder:
        rows = freeze(store, entries, Path(folder)).rows
    runs = {row.episode_id: segment_runs(row.marks, row.length) for row in rows}
    return {episode_id: subtasks for episode_id, subtasks in runs.items() if subtasks}, segment_faults(rows)
