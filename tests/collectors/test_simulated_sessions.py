"""Scripted sessions: numbered, repeatable to the byte that counts, and continued after an interruption."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from collectors.simulated_sessions import AnnotatorNotes, SessionConfig, run_session
from pipeline.episode_file import EpisodeReader, read_entry
from pipeline.workspace import Workspace

SESSION = SessionConfig("demo", "skilled", 3, ("pick up the red cube", "pick up the blue cube"), 0, 50)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished session."""
    workspace = Workspace(tmp_path_factory.mktemp("session")).create()
    assert run_session(workspace, SESSION) == ["demo-0000", "demo-0001", "demo-0002"]
    return workspace


def test_a_session_records_numbered_episodes_and_notes(recorded: Workspace) -> None:
    entries = recorded.list_episodes()
    assert [entry.id for entry in entries] == ["demo-0000", "demo-0001", "demo-0002"]
    assert [entry.info.task for entry in entries] == [SESSION.tasks[i % 2] for i in range(3)]
    assert [entry.info.operator_mark for entry in entries] == ["success"] * 3
    assert AnnotatorNotes(recorded).read() == {entry.id: True for entry in entries}
    with EpisodeReader(entries[0].path) as reader:
        assert reader.info.extra == {"scene_seed": 50}
        assert not reader.info.truncated and reader.info.policy_checkpoint is None


def test_an_interrupted_session_goes_on_and_ends_the_same(recorded: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    run_session(workspace, SESSION, part=(1, 2))
    kept = workspace.episode_path(SESSION.tasks[1], "demo-0001")
    before = kept.stat().st_mtime_ns
    # What a killed recording leaves: a part of an episode that is recorded again from its start.
    part = workspace.episode_path(SESSION.tasks[0], "demo-0002")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.with_name(part.name + ".part").write_bytes(b"half a file")
    run_session(workspace, SESSION)
    assert kept.stat().st_mtime_ns == before
    assert workspace.unfinished() == []
    for entry in recorded.list_episodes():
        again = read_entry(workspace.episode_path(entry.info.task, entry.id))
        assert again.fingerprint == entry.fingerprint
        assert again.info == entry.info


def test_half_a_line_of_notes_is_skipped(tmp_path: Path) -> None:
    notes = AnnotatorNotes(Workspace(tmp_path))
    assert notes.read() == {}
    notes.write("a", succeeded=True)
    with notes.path.open("a") as stream:
        stream.write('{"episode": "b", "succ')
    assert notes.read() == {"a": True}


def test_a_person_who_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="skilled, sloppy"):
        replace(SESSION, person="nobody")
