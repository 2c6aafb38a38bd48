"""The label store: append-only, one annotator an episode, stale leases refused, undo, many processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.labels import LabelStore, Lease, QueueFilter, StaleLease

TASK = "pick up the red cube"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at rest."""
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[LabelStore]:
    """A store that knows e0, e1, e2 of one task and f0 of another."""
    with LabelStore(tmp_path / "labels.sqlite", clock) as labels:
        labels.sync([(f"e{i}", TASK) for i in range(3)] + [("f0", "другая/task")])
        yield labels


def claim(store: LabelStore, annotator: str, task: str | None = None) -> Lease:
    """A lease that must be there."""
    lease = store.claim(annotator, wanted=QueueFilter(task))
    assert lease is not None
    return lease


def test_syncing_again_adds_only_what_is_new(store: LabelStore) -> None:
    assert store.sync([("e1", TASK), ("e9", TASK)]) == 1
    assert store.sync([]) == 0
    assert store.progress().total == 5


def test_claims_go_in_order_and_never_twice(store: LabelStore) -> None:
    assert [claim(store, who).episode_id for who in ("ana", "bo", "ana", "bo")] == ["e0", "e1", "e2", "f0"]
    assert store.claim("cy") is None


def test_claims_of_one_task(store: LabelStore) -> None:
    assert claim(store, "ana", "другая/task").episode_id == "f0"
    assert store.claim("ana", wanted=QueueFilter("другая/task")) is None
    assert store.claim("ana", wanted=QueueFilter("no such task")) is None


def test_recording_labels_and_ends_the_lease(store: LabelStore, clock: Clock) -> None:
    lease = claim(store, "ana")
    event = store.record(lease, "success", "neat")
    assert (event.outcome, event.annotator, event.note, event.supersedes) == ("success", "ana", "neat", None)
    label = store.current()["e0"]
    assert (label.outcome, label.annotator, label.event_id) == ("success", "ana", event.event_id)
    assert label.created_at == "1970-01-12T13:46:40.000+00:00"
    with pytest.raises(StaleLease):
        store.record(lease, "failure")
    with pytest.raises(StaleLease):
        store.heartbeat(lease)
    clock.now += 10_000
    assert claim(store, "bo").episode_id == "e1", "a labelled episode is not handed out again"


def test_a_lease_that_ran_out_goes_to_the_next_and_the_old_one_is_refused(
    store: LabelStore, clock: Clock
) -> None:
    slow = claim(store, "ana")
    clock.now += 300
    fast = claim(store, "bo")
    assert (slow.episode_id, fast.episode_id) == ("e0", "e0")
    assert fast.fence > slow.fence
    with pytest.raises(StaleLease, match="ana's lease on e0"):
        store.record(slow, "failure")
    with pytest.raises(StaleLease):
        store.heartbeat(slow)
    store.release(slow)
    assert store.record(fast, "success").annotator == "bo"
    assert len(store.history("e0")) == 1


def test_a_forged_lease_is_refused(store: LabelStore) -> None:
    lease = claim(store, "ana")
    for forged in (replace(lease, annotator="bo"), replace(lease, fence=lease.fence + 1)):
        with pytest.raises(StaleLease):
            store.record(forged, "success")


def test_a_heartbeat_keeps_and_a_release_frees(store: LabelStore, clock: Clock) -> None:
    lease = claim(store, "ana")
    clock.now += 299
    assert store.heartbeat(lease).expires == clock.now + 300
    clock.now += 299
    assert claim(store, "bo").episode_id == "e1"
    store.release(lease)
    assert claim(store, "bo").episode_id == "e0"


def test_a_lease_that_ran_out_still_serves_if_nobody_took_the_episode(
    store: LabelStore, clock: Clock
) -> None:
    lease = claim(store, "ana")
    clock.now += 5000
    assert store.record(lease, "exclude").outcome == "exclude"


def test_claiming_one_episode(store: LabelStore) -> None:
    first = store.claim_episode("e2", "ana")
    assert first is not None
    assert store.claim_episode("e2", "bo") is None
    second = store.claim_episode("e2", "ana")
    assert second is not None
    with pytest.raises(StaleLease):
        store.record(first, "success")
    store.record(second, "success")
    again = store.claim_episode("e2", "bo")
    assert again is not None, "a labelled episode can be labelled again"
    event = store.record(again, "failure")
    assert (event.supersedes, store.current()["e2"].outcome) == (1, "failure")
    with pytest.raises(InputError, match="does not know"):
        store.claim_episode("nope", "ana")


def test_setting_without_a_lease_makes_a_lease_stale(store: LabelStore) -> None:
    lease = claim(store, "ana")
    store.set("e0", "failure", "shell", "wrong cube")
    with pytest.raises(StaleLease):
        store.record(lease, "success")
    assert store.current()["e0"].note == "wrong cube"
    with pytest.raises(InputError, match="does not know"):
        store.set("nope", "failure", "shell")


@pytest.mark.parametrize("outcome", ["", "Success", "unlabelled", "succeeded"])
def test_only_the_three_outcomes_are_taken(store: LabelStore, outcome: str) -> None:
    with pytest.raises(InputError, match="success, failure, exclude"):
        store.set("e0", outcome, "ana")
    with pytest.raises(InputError, match="success, failure, exclude"):
        store.record(claim(store, "ana"), outcome)
    for act in (lambda: store.claim(" "), lambda: store.set("e0", "success", "")):
        with pytest.raises(InputError, match="needs a name"):
            act()
    assert store.current() == {}


def test_undo_restores_what_held_before_step_by_step(store: LabelStore) -> None:
    store.set("e0", "success", "bo")
    store.set("e1", "exclude", "ana")
    store.set("e0", "failure", "ana")
    undone = store.undo("ana")
    assert undone is not None
    assert (undone.episode_id, undone.outcome, undone.undoes) == ("e0", "success", 3)
    assert (store.current()["e0"].outcome, store.current()["e0"].annotator) == ("success", "bo")
    undone = store.undo("ana")
    assert undone is not None
    assert (undone.episode_id, undone.outcome) == ("e1", None)
    assert store.undo("ana") is None
    assert set(store.current()) == {"e0"}
    assert store.progress().unlabelled == 3
    assert [event.outcome for event in store.history("e0")] == ["success", "failure", "success"]
    assert claim(store, "cy").episode_id == "e1", "an unlabelled episode is handed out again"


def test_undo_does_not_touch_what_somebody_else_said_since(store: LabelStore) -> None:
    store.set("e0", "success", "ana")
    store.set("e0", "failure", "bo")
    with pytest.raises(InputError, match="bo has labelled e0"):
        store.undo("ana")
    assert store.current()["e0"].outcome == "failure"
    store.undo("bo")
    undone = store.undo("ana")
    assert undone is not None and undone.outcome is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE label_events SET outcome = 'failure'",
        "UPDATE label_events SET note = note",
        "DELETE FROM label_events",
        "INSERT OR REPLACE INTO label_events SELECT event_id, episode_id, 'failure', annotator, note,"
        " created_at, supersedes, undoes, role, quality, marks FROM label_events",
        "INSERT OR REPLACE INTO label_events (episode_id, outcome, annotator, note, created_at, undoes,"
        " marks) VALUES ('e0', 'failure', 'x', '', '', 1, '[]')",
        "DELETE FROM episodes",
        "UPDATE episodes SET id = 'other' WHERE id = 'e0'",
    ],
)
def test_the_database_itself_refuses_to_change_history(store: LabelStore, statement: str) -> None:
    store.set("e0", "success", "ana")
    store.undo("ana")
    before = store.history("e0")
    raw = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(statement)
    raw.close()
    assert store.history("e0") == before


def test_progress_counts(store: LabelStore, clock: Clock) -> None:
    store.set("e0", "success", "ana")
    store.set("e1", "exclude", "ana")
    claim(store, "ana")
    progress = store.progress()
    assert (progress.total, progress.success, progress.failure, progress.exclude) == (4, 1, 0, 1)
    assert (progress.unlabelled, progress.leased) == (2, 1)
    assert store.progress("другая/task").total == 1
    clock.now += 301
    assert store.progress().leased == 0


def test_no_label_store_and_newer_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    path.write_text("not a database, but long enough to be looked at " * 50)
    with pytest.raises(InputError, match="cannot open the label store"):
        LabelStore(path).progress()
    newer = sqlite3.connect(tmp_path / "newer.sqlite")
    newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(InputError, match="version 9"):
        LabelStore(tmp_path / "newer.sqlite").progress()


def test_many_threads_share_one_store(store: LabelStore) -> None:
    store.sync([(f"t{i:03d}", TASK) for i in range(100)])
    claimed: list[str] = []

    def work(name: str) -> None:
        while (lease := store.claim(name)) is not None:
            store.record(lease, "success")
            claimed.append(lease.episode_id)

    threads = [threading.Thread(target=work, args=(f"a{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 104
    assert store.progress().unlabelled == 0


def annotate(path: Path, name: str, start: Any, results: Any) -> None:
    """One process: opens a store that may not exist yet, then claims and labels until nothing is left."""
    with LabelStore(path) as store:
        start.wait()
        store.sync([(f"p{i:03d}", TASK) for i in range(120)])
        leases = []
        while (lease := store.claim(name)) is not None:
            leases.append((lease.episode_id, lease.fence))
            store.record(lease, "success" if len(leases) % 2 else "failure")
        results.put(leases)


def test_processes_never_get_the_same_lease(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(4), context.Queue()
    path = tmp_path / "labels.sqlite"
    processes = [context.Process(target=annotate, args=(path, f"a{i}", start, results)) for i in range(4)]
    for process in processes:
        process.start()
    leases = [lease for _ in processes for lease in results.get(timeout=60)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert Counter(episode for episode, _ in leases) == Counter(f"p{i:03d}" for i in range(120))
    with LabelStore(path) as store:
        assert store.progress().unlabelled == 0
        assert all(len(store.history(episode)) == 1 for episode, _ in leases)
