"""From the segments that people marked to the sub-task of each frame, against the definition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.frame_dataset import FrameDataset
from pipeline.frame_subtasks import FrameSubtasks, labelled_names, labelled_subtasks, segment_faults
from pipeline.frame_table import FrameTable
from pipeline.label_snapshot import SnapshotRow, load_snapshot
from pipeline.label_types import Mark
from pipeline.labels import LabelStore, freeze
from pipeline.policy.policy_frames import PolicyFrames, subtasks_said
from pipeline.prompts import NONE, POSITIVE, prompt
from pipeline.site_config import LabelsSection
from pipeline.subtask_prompts import UNKNOWN, with_subtask
from pipeline.workspace import Workspace
from tests.policy_tables import BLUE, RED, random_table
from tests.workflows.sample_lab import add_episode

NAMES = ("reach the cube", "lift it", "put it down")
# As people write them.
SPELLINGS = ("Reach the  cube", "lift it ", "put it down")


def row_of(name: str, length: int, marks: tuple[Mark, ...] = ()) -> SnapshotRow:
    """An episode's row with these marks."""
    return SnapshotRow(
        *(name, "task", "success", "ana", "op", None, "arm", None, "2025", length, False, "f"), marks=marks
    )


def rows_of(table: FrameTable, *marks: tuple[Mark, ...]) -> list[SnapshotRow]:
    """The rows of the table's episodes."""
    lengths = table.lengths.tolist()
    return [row_of(*one) for one in zip(table.episode_ids, lengths, marks, strict=True)]


@st.composite
def segments(draw: st.DrawFn) -> tuple[Mark, ...]:
    """Some segments and moments, in any order, overlapping or not, beyond the end or not."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        first, length = draw(st.integers(0, 9)), draw(st.integers(1, 6))
        found.append(Mark("segment", first, first + length, draw(st.sampled_from(SPELLINGS))))
    return (*found, *draw(st.sampled_from([(), (Mark("success", 2, 2, ""),)])))


def claimed(marks: tuple[Mark, ...], frame: int) -> set[str]:
    """The sub-tasks whose segments a frame lies in."""
    return {
        NAMES[SPELLINGS.index(mark.text)]
        for mark in marks
        if mark.kind == "segment" and frame in range(mark.start_frame, mark.end_frame)
    }


@given(st.lists(segments(), min_size=2, max_size=2))
def test_a_frame_has_the_sub_task_of_the_segment_that_it_lies_in(marks: list[tuple[Mark, ...]]) -> None:
    table = random_table((8, 5), size=2)
    rows = rows_of(table, *marks)
    found = labelled_subtasks(table, rows)
    for frame, code in enumerate(found.codes.tolist()):
        episode, place = int(table.episode_index[frame]), int(table.frame_index[frame])
        names = claimed(marks[episode], place)
        assert (found.names[code] if code != UNKNOWN else None) == (names.pop() if len(names) == 1 else None)
    seen = {name for i, row in enumerate(rows) for f in range(row.length) for name in claimed(marks[i], f)}
    assert found.names == labelled_names(rows) == tuple(sorted(seen))
    wrong = [
        any(len(claimed(row.marks, frame)) > 1 for frame in range(20))
        or any(mark.end_frame > row.length for mark in row.marks if mark.kind == "segment")
        for row in rows
    ]
    said = segment_faults(rows)
    assert bool(said) == any(wrong)
    if any(wrong):
        assert f"segments of episode {rows[wrong.index(True)].episode_id} " in said and "\n" not in said
        assert ("and 1 more episode" in said) == all(wrong)


@given(st.lists(st.integers(-1, 2), max_size=20), st.permutations(range(3)), st.integers(0, 3))
def test_names_that_a_policy_knows_keep_their_frames_and_others_become_unknown(
    codes: list[int], order: list[int], known: int
) -> None:
    subtasks = FrameSubtasks(NAMES, np.array(codes, dtype=np.int16))
    policy = [NAMES[i].upper() for i in order[:known]]
    found = subtasks.known_as(policy)
    for before, after in zip(codes, found.codes.tolist(), strict=True):
        name = NAMES[before] if before != UNKNOWN else ""
        assert after == (policy.index(name.upper()) if name.upper() in policy else UNKNOWN)
    assert found.counts() == {name: sum(NAMES[c].upper() == name for c in codes if c >= 0) for name in policy}


@pytest.mark.parametrize(
    ("names", "codes", "message"),
    [
        (("a", " A"), [0], "a name of its own"),
        (("a", " "), [0], "a name of its own"),
        (("a",), [1], "go from 1 to 1, there are 1"),
        (("a",), [-2], "from -2"),
        (("a",), [[0]], "int16"),
    ],
)
def test_what_is_no_sub_task_of_frames_is_refused(names: Any, codes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrameSubtasks(names, np.array(codes, dtype=np.int16))


def test_labels_of_other_frames_are_refused() -> None:
    table = random_table((8, 5), size=2)
    rows = rows_of(table, (), ())
    for others in (rows[::-1], rows[:1], [replace(rows[0], length=7), rows[1]]):
        with pytest.raises(InputError, match="other episodes than the frames"):
            labelled_subtasks(table, others)
    with pytest.raises(InputError, match="13 frames and sub-tasks of 2"):
        FrameDataset(table, chunk=1, subtasks=FrameSubtasks(NAMES, np.zeros(2, dtype=np.int16)))


def policy_config(subtasks: list[str] | None) -> Any:
    """What is read of a policy's configuration."""
    names = {} if subtasks is None else {"subtasks": subtasks}
    return SimpleNamespace(
        type="any",
        image_features={},
        observation_delta_indices=None,
        action_delta_indices=[0, 1, 2],
        reward_delta_indices=None,
        **names,
    )


def test_prompts_say_the_sub_tasks_that_the_policy_predicts_and_chunks_stay_whole() -> None:
    table = random_table((4, 3), size=2)
    marks = (Mark("segment", 0, 2, SPELLINGS[0]), Mark("segment", 2, 4, SPELLINGS[1]))
    subtasks = labelled_subtasks(table, rows_of(table, marks, (Mark("segment", 1, 2, "dance"),)))
    rows, codes = np.arange(7), np.resize(np.array([NONE, POSITIVE], dtype=np.int8), 7)
    batch = PolicyFrames(table, policy_config(["lift it", "Reach the cube"]), subtasks).batch(rows, codes)
    said = [*[with_subtask(RED, "Reach the cube")] * 2, *[with_subtask(RED, "lift it")] * 2, *[BLUE] * 3]
    expected = [prompt(task, "positive" if i % 2 else None) for i, task in enumerate(said)]
    assert batch["task"] == expected
    # Frame 1 is the last of its sub-task: its chunk goes on into the next one.
    np.testing.assert_array_equal(batch["action"][1], table.action[1:4])
    assert not batch["action_is_pad"][1].any()
    for config in (policy_config(None), policy_config([])):
        bare = PolicyFrames(table, config, subtasks).batch(rows, codes)
        assert bare["task"] == [prompt((RED, BLUE)[i > 3], "positive" if i % 2 else None) for i in range(7)]
        assert subtasks_said(config, subtasks) is None


def test_the_label_that_holds_decides(tmp_path: Path) -> None:
    """Of those who agree the first by name who marked anything; a reviewer's word has its own, or none."""
    workspace = Workspace(tmp_path).create()
    episodes = ("agreed", "alone", "disputed", "nobody", "settled")
    for name in episodes:
        add_episode(workspace, name)
    entries = workspace.list_episodes()
    rules = LabelsSection(double_share=1.0, gold_share=0.0)
    with LabelStore(workspace.labels_path, rules=rules) as store:
        store.sync((entry.id, entry.info.task) for entry in entries)
        for annotator, differs in (("zoe", ()), ("ana", ("disputed", "settled"))):
            leases = {}
            while lease := store.claim(annotator):
                leases[lease.episode_id] = lease
                failed = lease.episode_id in differs
                segment = Mark("segment", 0, 2, f"of {annotator}")
                store.record(lease, "failure" if failed else "success", marks=(segment,))
            assert leases.keys() == set(episodes)
        for annotator in ("ana", "zoe"):
            store.set("nobody", "success", annotator)
        store.set("alone", "success", "zoe", marks=(Mark("segment", 0, 2, "anew"),))
        store.adjudicate("settled", "failure", "rae")
        path = freeze(store, entries, tmp_path / "snapshots").path
    found = {row.episode_id: labelled_names([row]) for row in load_snapshot(path).rows}
    assert found == {"agreed": ("of ana",), "alone": ("anew",), "nobody": (), "settled": ()}
