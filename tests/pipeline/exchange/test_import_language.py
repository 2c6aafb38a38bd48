"""Import of LeRobot datasets with sub-tasks: our own exports, and those of ``lerobot-annotate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.exchange.language_columns import read_language
from pipeline.lerobot_language import Subtask
from pipeline.segment_runs import proposed_segments, segment_runs
from pipeline.workspace import Workspace
from tests.pipeline.datasets import export, open_dataset, three_episodes
from tests.pipeline.exchange.imports import bring

pytest.importorskip("lerobot.datasets")

MARKED = (Subtask("reach", 1, 3), Subtask("lift", 3, 4), Subtask("put down", 6, 8))
TIMES = np.arange(5, dtype=np.float32) / np.float32(10)


def annotate(root: Path, staged: dict[int, list[dict[str, Any]]], folder: Path) -> None:
    """Writes rows into a dataset as LeRobot's own annotation command does, without its model."""
    from lerobot.annotations.steerable_pipeline.executor import Executor
    from lerobot.annotations.steerable_pipeline.reader import iter_episodes
    from lerobot.annotations.steerable_pipeline.staging import EpisodeStaging
    from lerobot.annotations.steerable_pipeline.writer import LanguageColumnsWriter

    records = list(iter_episodes(root))
    for number, rows in staged.items():
        EpisodeStaging(folder, number).write("plan", rows)
    LanguageColumnsWriter().write_all(records, folder, root)
    Executor._ensure_annotation_metadata_in_info(root)


def row(style: str, content: str, frame: int, role: str = "assistant") -> dict[str, Any]:
    """An annotation at a frame's time, of 10 a second."""
    time = float(np.float32(frame / 10))
    return {"role": role, "content": content, "style": style, "timestamp": time, "tool_calls": None}


def proposals(workspace: Workspace, entry: EpisodeEntry) -> tuple[Subtask, ...]:
    """The sub-tasks that came with an episode."""
    copy = workspace.find(entry.id)
    return segment_runs(proposed_segments(copy.info.extra, copy.length), copy.length)


def test_sub_tasks_of_our_own_export_come_back(tmp_path: Path) -> None:
    entries = three_episodes(tmp_path / "lab")[:2]
    root = export(entries, tmp_path / "out", workers=1, subtasks={entries[0].id: MARKED})
    other = Workspace(tmp_path / "other")
    results = bring(other, root)
    assert [(r.refused, r.imported and r.imported.notes) for r in results] == [(None, ())] * 2
    assert [proposals(other, entry) for entry in entries] == [MARKED, ()]
    assert "subtasks" not in other.find(entries[1].id).info.extra["import"]
    assert [r.imported.status for r in bring(other, root) if r.imported] == ["present"] * 2


def test_sub_tasks_of_lerobots_annotations_come_in(tmp_path: Path) -> None:
    entries = three_episodes(tmp_path / "lab")
    root = export(entries, tmp_path / "out", workers=1)
    first = [row("subtask", "grasp", 0), row("subtask", "lift", 4), row("plan", "1. grasp 2. lift", 0)]
    events = [row("interjection", "faster", 2, "user"), row("task_aug", "take it", 0, "user")]
    annotate(root, {0: [*first, *events], 1: [row("subtask", "wait", 2)]}, tmp_path / "staging")
    assert open_dataset(root)[5]["language_persistent"][0]["content"] in ("1. grasp 2. lift", "grasp")
    other = Workspace(tmp_path / "other")
    results = bring(other, root)
    assert [r.refused for r in results] == [None] * 3
    assert [r.imported.notes for r in results if r.imported] == [
        ("not imported: annotations (interjection, plan, task_aug)",),
        (),
        (),
    ]
    assert [proposals(other, entry) for entry in entries] == [
        (Subtask("grasp", 0, 4), Subtask("lift", 4, 9)),
        (Subtask("wait", 2, 4),),
        (),
    ]


def test_sub_tasks_annotated_after_an_import_are_named_where_it_is_there_already(tmp_path: Path) -> None:
    entries = three_episodes(tmp_path / "lab")
    root = export(entries, tmp_path / "out", workers=1)
    other = Workspace(tmp_path / "other")
    assert [r.imported.status for r in bring(other, root) if r.imported] == ["imported"] * 3
    annotate(root, {0: [row("subtask", "grasp", 0), row("subtask", "lift", 4)]}, tmp_path / "staging")
    again = [r.imported for r in bring(other, root) if r.imported]
    assert [imported.status for imported in again] == ["present"] * 3
    assert [len(imported.notes) for imported in again] == [1, 0, 0]
    assert "annotated since" in again[0].notes[0] and "move its file" in again[0].notes[0]
    assert proposals(other, entries[0]) == ()
    # What the note says to do.
    other.find(entries[0].id).path.unlink()
    assert [(r.imported.status, r.imported.notes) for r in bring(other, root) if r.imported] == [
        ("imported", ()),
        ("present", ()),
        ("present", ()),
    ]
    assert proposals(other, entries[0]) == (Subtask("grasp", 0, 4), Subtask("lift", 4, 9))
    # Where it was recorded, it is not to be replaced by its export.
    here = [r.imported.notes for r in bring(Workspace(tmp_path / "lab"), root) if r.imported]
    assert ["'recap label'" in "".join(notes) for notes in here] == [True, False, False]


def column(frames: list[list[dict[str, Any]]]) -> pa.Table:
    """A table with these rows in its frames."""
    return pa.table({"language_persistent": pa.array(frames)})


def test_a_row_without_words_ends_a_sub_task_and_times_may_be_a_little_late() -> None:
    rows = [row("subtask", "grasp", 1), row("subtask", " ", 3)]
    rows[0]["timestamp"] += 4e-4
    assert read_language(column([rows] * 5), TIMES) == ((Subtask("grasp", 1, 3),), ())


def test_columns_without_annotations_and_of_another_form() -> None:
    assert read_language(column([[]] * 5), TIMES) == ((), ())
    assert read_language(pa.table({"language_events": pa.nulls(5)}), TIMES) == ((), ())
    assert read_language(column([[row("subtask", "grasp", 1)]] * 5), None) == ((), ())
    with pytest.raises(InputError, match="damaged"):
        read_language(pa.table({"language_persistent": pa.array([[1]] * 5)}), TIMES)


@pytest.mark.parametrize("time", [None, float("nan"), "soon"])
def test_a_sub_task_without_a_time_is_left_out_alone(time: object) -> None:
    lost = row("subtask", "lift", 3)
    if time == "soon":  # a column of another type
        rows = [lost | {"timestamp": time}]
        assert read_language(column([rows] * 5), TIMES) == ((), ("subtask without a time",))
        return
    rows = [row("subtask", "grasp", 1), lost | {"timestamp": time}]
    assert read_language(column([rows] * 5), TIMES) == (
        (Subtask("grasp", 1, 5),),
        ("subtask without a time",),
    )


def test_sub_tasks_of_a_column_without_times_are_left_out() -> None:
    table = column([[{"style": "subtask", "content": "grasp"}]] * 5)
    assert read_language(table, TIMES) == ((), ("subtask without a time",))


def test_large_lists_are_lists() -> None:
    rows = [row("subtask", "grasp", 1), row("subtask", "lift", 3)]
    small = column([rows] * 2 + [[]] + [rows] * 2)
    kind = small.column("language_persistent").type
    large = pa.table({"language_persistent": small.column(0).cast(pa.large_list(kind.value_type))})
    assert read_language(large, TIMES) == read_language(small, TIMES) != ((), ())
    empty = pa.table({"language_events": pa.array([[]] * 5, pa.large_list(pa.null()))})
    assert read_language(empty, TIMES) == ((), ())
