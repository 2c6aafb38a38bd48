"""Stores that are not what they were: emptied, another workspace's, or left by an earlier version."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.object_store import ObjectStore
from tests.workflows.object_stores import folder, require_sound
from tests.workflows.sample_lab import SampleLab, frozen, make_lab
from workflows import remote_databases
from workflows.commands.sync import pull
from workflows.remote_databases import rows_digest
from workflows.remote_sync import Sync
from workflows.schedule import Schedule
from workflows.schedule_store import ScheduleStore

__all__ = ["folder"]


@pytest.fixture
def lab(tmp_path: Path) -> SampleLab:
    made = make_lab(tmp_path / "lab")
    made.turn(promoted=True)
    return made


def test_what_was_removed_in_the_store_is_sent_again(lab: SampleLab, folder: str, tmp_path: Path) -> None:
    store, place = ObjectStore(folder), tmp_path / "store"
    sent = Sync(lab.workspace, store).push().moved
    # All of it.
    shutil.rmtree(place)
    place.mkdir()
    assert sorted(Sync(lab.workspace, store).push().moved) == sorted(sent)
    # One step, by hand.
    (place / "steps" / "train_base" / f"{lab.base.key}.json").unlink()
    assert Sync(lab.workspace, store).push().moved == [f"steps/{lab.base.name}/{lab.base.key}"]
    # All but what the store is known by, as a push of an earlier version left it.
    for path in place.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "recap.json":
            path.unlink()
    assert sorted(Sync(lab.workspace, store).push().moved) == sorted(sent)
    assert require_sound(store) == len(lab.store.published())


def test_a_store_that_another_workspace_has_taken_is_not_taken_for_ours(
    lab: SampleLab, folder: str, tmp_path: Path
) -> None:
    store, place = ObjectStore(folder), tmp_path / "store"
    Sync(lab.workspace, store).push()
    mine = rows_digest(lab.workspace.labels_path)
    shutil.rmtree(place)
    place.mkdir()
    other = make_lab(tmp_path / "other")
    frozen(other.workspace, ("demo-0", "failure", "zoe"))
    Sync(other.workspace, store).push()
    before = {one.path for one in store.listing()}
    # Nothing of ours changed since we were there: without a look at whose it is, theirs would be the newer.
    for moved in (Sync(lab.workspace, store).push(), Sync(lab.workspace, store).pull()):
        assert "labels.sqlite" in {conflict.name for conflict in moved.conflicts}
    assert {one.path for one in store.listing()} == before and rows_digest(lab.workspace.labels_path) == mine


def test_schedules_stay_on_the_machine_that_ticks(lab: SampleLab, folder: str, tmp_path: Path) -> None:
    """They name commands that are run: who can write to a bucket must not be able to add one."""
    store, there, file = ObjectStore(folder), tmp_path / "there", "schedules.sqlite"
    schedule = Schedule("night", "* * * * *", notify_command="touch /nowhere/told")
    ScheduleStore(lab.workspace.root).define(schedule, datetime.now(UTC), new=True)
    Sync(lab.workspace, store).push()
    assert not store.exists(f"databases/{file}")
    # As a push of an earlier version left it.
    copy = tmp_path / "copy"
    content = remote_databases.copy_of(lab.workspace.root / file, copy)
    assert content is not None
    made = remote_databases.described(copy, content, 1, "zoe", "today")
    assert remote_databases.send_database(store, file, copy, made, None)
    pull(there, remote=folder)
    pull(there, remote=folder, overwrite=[file])
    assert (there / "runs.sqlite").exists() and not (there / file).exists()
