"""Files that cannot be read, a full disk, a run that hangs: one line for each, and the rest goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Failure
from pipeline.workspace import Workspace
from workflows.ledger import Ledger
from workflows.notifications import Target
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Kind, Run, Schedule
from workflows.schedule_conditions import Condition
from workflows.schedule_database import ScheduleDatabase
from workflows.schedule_outside import Outside
from workflows.schedule_preview import preview
from workflows.schedule_store import NewRun, ScheduleStore
from workflows.schedule_tick import Tick

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TOLD = "https://example.org/hook"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "lab").create()


def fine(root: Path, run: Run, attempt: int, log: Path) -> int:
    store = ScheduleStore(root)
    assert store.register(run.id, attempt, START, {}, ProcessIdentity.mine())
    store.note(run.id, Kind.ENDED, START + MINUTE, {"outcome": "kept", "reason": ""}, attempt=attempt)
    return 0


def damage_ledger(workspace: Workspace) -> Path:
    workspace.ledger_path.write_bytes(b"garbage" * 1000)
    return workspace.ledger_path


def damage_manifest(workspace: Workspace) -> Path:
    Ledger(workspace).record_iteration(1, "candidate1", {"reason": "kept"})
    manifest = workspace.steps / "recap" / "candidate1" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"inputs": [')
    return manifest


def damage_shape_of_manifest(workspace: Workspace) -> Path:
    manifest = damage_manifest(workspace)
    manifest.write_text("[]")
    return manifest


@pytest.mark.parametrize(
    ("when", "damage"),
    [
        ("iterations>=1", damage_ledger),
        ("hours_since_last_iteration>=1", damage_ledger),
        ("new_labelled_episodes>=1", damage_manifest),
        ("new_episodes>=1", damage_shape_of_manifest),
    ],
)
def test_a_file_that_cannot_be_read_fails_its_run_and_no_other(
    workspace: Workspace, when: str, damage: Any
) -> None:
    path, told = damage(workspace), []

    def tell(target: Target, summary: Mapping[str, Any]) -> dict[str, str]:
        told.append(summary)
        return {"url": "ok"}

    store = ScheduleStore(workspace.root)
    store.define(Schedule("asks", "1 12 * * *", when=when, notify_url=TOLD), START, new=True)
    store.define(Schedule("goes-on", "1 12 * * *"), START, new=True)
    now = START + MINUTE
    said = [line for line in preview(workspace, now) if "cannot be computed" in line]
    assert len(said) == 1 and str(path) in said[0]
    report = Tick(workspace, Outside(now=lambda: now, run=fine, tell=tell)).do()
    assert {run.schedule: run.outcome for run in store.history()} == {"asks": "failed", "goes-on": "kept"}
    assert report.failed == ["asks"] and len(told) == 1
    reason = told[0]["reason"]
    assert reason.startswith("the condition cannot be computed: ") and str(path) in reason
    assert "\n" not in reason


def test_whatever_goes_wrong_with_a_condition_is_that_runs_failure(workspace: Workspace) -> None:
    store = ScheduleStore(workspace.root)
    store.define(Schedule("asks", "1 12 * * *"), START, new=True)

    def measure(workspace: Workspace, condition: Condition, now: datetime) -> dict[str, float]:
        raise ZeroDivisionError("by\nzero")

    report = Tick(workspace, Outside(now=lambda: START + MINUTE, run=fine, measure=measure)).do()
    assert report.lines == [
        "asks: failed, the condition cannot be computed: ZeroDivisionError: by zero"
    ] and report.failed == ["asks"]


def test_a_full_disk_is_called_so_and_changes_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ScheduleStore(workspace.root)
    store.define(Schedule("nightly", "0 2 * * *"), START, new=True)
    connected = ScheduleDatabase._connected

    def full(self: ScheduleDatabase) -> sqlite3.Connection:
        database = connected(self)
        # SQLite's own answer to a disk without a free page.
        [pages] = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        return database

    runs = [NewRun(START + n * MINUTE) for n in range(2000)]
    with monkeypatch.context() as patch:
        patch.setattr(ScheduleDatabase, "_connected", full)
        with pytest.raises(Failure, match=r"the disk is full; nothing was changed") as caught:
            store.insert("nightly", runs, START)
    assert str(store.path) in str(caught.value) and store.history() == []
    assert len(store.insert("nightly", runs[:3], START)) == 3


def test_of_a_run_that_hangs_somebody_is_told_once(workspace: Workspace) -> None:
    store, told = ScheduleStore(workspace.root), []
    store.define(Schedule("often", "*/5 * * * *", notify_url=TOLD), START, new=True)
    now = [START + 5 * MINUTE]

    def tell(target: Target, summary: Mapping[str, Any]) -> dict[str, str]:
        told.append((summary["outcome"], summary["logical_time"], summary["reason"]))
        return {"url": "ok"}

    def tick() -> None:
        Tick(workspace, Outside(now=lambda: now[0], run=hangs, tell=tell)).do()

    def hangs(root: Path, run: Run, attempt: int, log: Path) -> int:
        assert store.register(run.id, attempt, now[0], {}, ProcessIdentity.mine())
        # Two times at once, as where nothing ticked for a while, and then one by one.
        for later in (11, 15, 20):
            now[0] = run.logical_time + later * MINUTE
            tick()
        now[0] += MINUTE
        document = {"outcome": "kept", "reason": ""}
        store.note(run.id, Kind.ENDED, now[0], document, attempt=attempt)
        return 0

    for _ in range(2):
        tick()
        now[0] += 5 * MINUTE
    first, second = START + 10 * MINUTE, START + 35 * MINUTE
    assert [(outcome, time) for outcome, time, _ in told] == [
        ("refused", first.isoformat()),
        ("refused", second.isoformat()),
    ]
    assert told[0][2] == "the run of often of 2026-03-01T12:05+00:00 was at work"
    assert [run.outcome for run in store.history()] == (["kept"] + ["refused"] * 4) * 2
