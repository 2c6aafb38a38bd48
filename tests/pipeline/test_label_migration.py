"""Every version of the label store opens: a file of version 1, made by its software, is kept in golden/."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.label_schema import VERSION
from pipeline.labels import LabelStore, freeze, read_snapshot
from tests.pipeline.test_label_snapshot import ENTRIES

GOLDEN = Path(__file__).parent / "golden"
SAID = [  # event, episode, outcome, annotator, note, supersedes, undoes
    (1, "e0", "success", "ana", "schön", None, None),
    (2, "e1", "failure", "bo", "", None, None),
    (3, "e0", "failure", "bo", "dropped it", 1, None),
    (4, "e2", "exclude", "ana", "", None, None),
    (5, "e2", None, "ana", "", 4, 4),
    (6, "f0", "success", "cy", "", None, None),
    (7, "e0", "success", "bo", "", 3, 3),
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the file of version 1."""
    return Path(shutil.copy(GOLDEN / "labels-v1.sqlite", tmp_path / "labels.sqlite"))


def test_there_is_a_file_of_every_older_version() -> None:
    """Who raises the version adds one, written by the last release before."""
    names = {path.name for path in GOLDEN.glob("labels-v*.sqlite")}
    assert names == {f"labels-v{version}.sqlite" for version in range(1, VERSION)}


def test_all_that_was_said_in_version_1_is_there(old: Path) -> None:
    with LabelStore(old, lambda: 1_700_000_100.0) as store:
        events = store.events()
        assert [
            (e.event_id, e.episode_id, e.outcome, e.annotator, e.note, e.supersedes, e.undoes) for e in events
        ] == SAID
        assert {(e.role, e.quality, e.marks) for e in events} == {("label", None, ())}
        assert events[0].created_at == "2023-11-14T22:13:22.000+00:00"
        labels = store.current()
        assert {i: (x.outcome, x.annotator, x.note) for i, x in labels.items()} == {
            "e0": ("success", "ana", "schön"),
            "e1": ("failure", "bo", ""),
            "f0": ("success", "cy", ""),
        }
        progress = store.progress()
        assert (progress.total, progress.success, progress.failure, progress.exclude) == (6, 2, 1, 0)
        assert (progress.unlabelled, progress.leased, progress.disputed) == (3, 1, 0)
        assert store.states() == {
            "e0": "single",
            "e1": "single",
            "e2": "unlabelled",
            "e3": "unlabelled",
            "e4": "unlabelled",
            "f0": "single",
        }


def test_work_goes_on_in_a_migrated_file(old: Path) -> None:
    with LabelStore(old, lambda: 1_700_000_100.0) as store:
        lease = store.claim_episode("e3", "ana")
        assert lease is not None, "the lease of before still holds"
        assert store.claim_episode("e3", "bo") is None
        store.record(lease, "failure", quality="unsafe")
        first = store.claim("bo")
        assert first is not None and first.episode_id == "e2"
        undone = store.undo("cy")
        assert undone is not None and (undone.episode_id, undone.outcome) == ("f0", None)
        assert len(store.events()) == len(SAID) + 2


def test_a_migrated_and_a_new_file_are_alike(old: Path, tmp_path: Path) -> None:
    def schema(path: Path) -> list[tuple[Any, ...]]:
        with LabelStore(path) as store:
            store.progress()
        connection = sqlite3.connect(path)
        found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name")
        rows = [
            tuple(" ".join(str(cell).split()).replace("IF NOT EXISTS ", "") for cell in row) for row in found
        ]
        connection.close()
        return rows

    assert schema(old) == schema(tmp_path / "new.sqlite")


def test_history_of_version_1_cannot_be_changed_after_the_migration(old: Path) -> None:
    with LabelStore(old) as store:
        store.progress()
    raw = sqlite3.connect(old)
    for statement in ("UPDATE label_events SET note = ''", "DELETE FROM label_events WHERE event_id = 1"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()


def test_software_of_version_1_that_is_still_running_cannot_label(old: Path) -> None:
    """It would leave the episode's new state as it was."""
    running = sqlite3.connect(old)
    assert running.execute("SELECT COUNT(*) FROM label_events").fetchone() == (7,)
    with LabelStore(old) as store:
        store.progress()
        with pytest.raises(sqlite3.IntegrityError, match="upgraded meanwhile"):
            running.execute(
                "INSERT INTO label_events (episode_id, outcome, annotator, note, created_at)"
                " VALUES ('e4', 'success', 'old', '', '')"
            )
        running.close()
        assert len(store.events()) == len(SAID)


def test_a_migration_that_fails_leaves_the_old_file(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.label_schema.update_state", fail)
    with pytest.raises(KeyboardInterrupt):
        LabelStore(old).progress()
    raw = sqlite3.connect(old)
    assert raw.execute("PRAGMA user_version").fetchone() == (1,)
    assert len(raw.execute("PRAGMA table_info (label_events)").fetchall()) == 8
    raw.close()
    monkeypatch.undo()
    with LabelStore(old) as store:
        assert len(store.current()) == 3


def open_it(path: Path) -> int:
    """Opens the store from another process."""
    with LabelStore(path) as store:
        return len(store.current())


def test_several_processes_migrate_one_file(old: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(open_it, [old] * 6) == [3] * 6


def test_other_databases_and_newer_stores_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    raw = sqlite3.connect(other)
    raw.execute("CREATE TABLE episodes (mine TEXT)")
    raw.close()
    with pytest.raises(InputError, match="no label store"):
        LabelStore(other).progress()


def test_snapshots_of_version_1_are_read_and_verified(tmp_path: Path) -> None:
    """Made from the first five episodes of the golden store."""
    rows = read_snapshot(GOLDEN / "label-snapshot-v1.parquet")
    assert [row.outcome for row in rows] == ["success", "failure", None, None, None]
    assert {(row.opinions, row.quality, row.marks) for row in rows} == {(0, None, ())}
    with LabelStore(Path(shutil.copy(GOLDEN / "labels-v1.sqlite", tmp_path / "l.sqlite"))) as store:
        new = freeze(store, ENTRIES, tmp_path)
    assert [(r.episode_id, r.outcome, r.annotator, r.fingerprint) for r in new.rows] == [
        (r.episode_id, r.outcome, r.annotator, r.fingerprint) for r in rows
    ]
    assert new.digest[:16] != "ed68e81a9c3426e6", "another version, another name"
