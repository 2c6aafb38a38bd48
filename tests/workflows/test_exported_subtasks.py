"""Sub-tasks of an export: what ``--subtasks`` writes, and what is said without it, are the same."""

from __future__ import annotations

import re

import pytest

from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.labels import LabelStore, Mark
from pipeline.lerobot_language import Subtask
from pipeline.site_config import LabelsSection
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from workflows.exported_subtasks import exported_subtasks, subtasks_left_out

REACH = Mark("segment", 0, 4, "reach")


def labelled(workspace: Workspace, *marks: Mark, entries: list[EpisodeEntry]) -> None:
    """The first of the episodes has a label with these marks."""
    with LabelStore(workspace.labels_path) as store:
        store.sync([(entry.id, entry.info.task) for entry in entries])
        store.set(entries[0].id, "success", "ana", marks=marks)


def test_the_second_persons_segments_count_in_both(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    entries = [make_episode(), make_episode()]
    with LabelStore(workspace.labels_path, rules=LabelsSection(double_share=1.0)) as store:
        store.sync([(entry.id, entry.info.task) for entry in entries])
        first = store.claim("ana")
        assert first is not None
        store.record(first, "success")
        second = store.claim_episode(first.episode_id, "ben")
        assert second is not None
        store.record(second, "success", marks=(REACH,))
    found, lines = exported_subtasks(workspace.labels_path, entries)
    assert found == {first.episode_id: (Subtask("reach", 0, 4),)}
    assert lines == ["sub-tasks: 1 in 1 of 2 episodes"]
    (left_out,) = subtasks_left_out(workspace.labels_path, entries)
    assert left_out.startswith("the sub-tasks of 1 episode are not in it: --subtasks writes them")


def test_where_every_frame_is_claimed_twice_both_say_why_there_is_nothing(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entries = [make_episode(), make_episode()]
    labelled(workspace, REACH, Mark("segment", 0, 4, "lift"), entries=entries)
    overlap = r"overlap \('lift' and 'reach' at frame 0\b"
    why = f"segments of episode {entries[0].id} {overlap}.*mark the segments again"
    with pytest.raises(InputError, match=f"no frame of these episodes has a sub-task: {why}"):
        exported_subtasks(workspace.labels_path, entries)
    (left_out,) = subtasks_left_out(workspace.labels_path, entries)
    assert re.match(f"no sub-task is in it, and --subtasks would write none: {why}", left_out)


def test_without_segments_there_is_nothing_to_say(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    entries = [make_episode()]
    assert subtasks_left_out(workspace.labels_path, entries) == []
    labelled(workspace, Mark("success", 3, 3), entries=entries)
    assert subtasks_left_out(workspace.labels_path, entries) == []
    with pytest.raises(InputError, match="no label of these episodes has a segment"):
        exported_subtasks(workspace.labels_path, entries)
