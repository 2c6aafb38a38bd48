"""Ticks with real processes: the command itself, two ticks at once, and SIGKILL of a tick and of its run."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from tests.workflows.schedule_samples import MINUTE, START, add
from workflows.driver_lock import driver_lock
from workflows.ledger import Ledger
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Event, Kind, Run, Schedule
from workflows.schedule_child import SUPERSEDED, work
from workflows.schedule_outside import Outside, workspace_holder
from workflows.schedule_store import ScheduleStore
from workflows.schedule_summary import iterations_now, summary_after
from workflows.schedule_tick import MOST_ATTEMPTS, Tick


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "lab").create()


def fine(root: Path, run: Run, attempt: int, log: Path) -> int:
    """A run that does nothing, well."""
    store = ScheduleStore(root)
    assert store.register(run.id, attempt, START, {}, ProcessIdentity.mine())
    store.note(run.id, Kind.ENDED, START + MINUTE, {"outcome": "kept", "reason": "no work"}, attempt=attempt)
    return 0


def outcomes(store: ScheduleStore) -> list[str]:
    return [run.outcome for run in store.history()]


def test_the_command_itself_fails_on_an_empty_workspace_and_that_is_noted(workspace: Workspace) -> None:
    # The last two minutes of every hour like this one: nothing more comes due while the run is at work.
    now = datetime.now(UTC)
    cron = f"{(now - MINUTE).minute},{now.minute} * * * *"
    store = add(workspace, cron, options=("--quick", "--seed", "3"), at=now - 2 * MINUTE)
    report = Tick(workspace).do()
    [run] = store.history()
    assert run.final is not None and run.final.kind is Kind.ENDED
    document = run.final.document
    assert (document["outcome"], document["status"]) == ("failed", 2)
    assert document["reason"].startswith("there are no episodes in ") and document["missed"] == 1
    assert len(report.failed) == 1 and str(workspace.root / document["log"]) in report.failed[0]
    log = (workspace.root / document["log"]).read_text()
    assert (
        "attempt 1: recap improve --quick --seed 3\n" in log and "recap: error: there are no episodes" in log
    )
    # The process of the run was another than this one, and is gone.
    worker = run.worker()
    assert worker is not None and worker.pid != os.getpid() and not worker.is_alive()


def test_a_second_tick_at_the_same_time_does_nothing(workspace: Workspace) -> None:
    store = add(workspace)
    lines = []

    def tick_within(*_: object) -> dict[str, float]:
        lines.extend(Tick(workspace, Outside(now=lambda: START + MINUTE, run=fine)).do().lines)
        return {}

    Tick(workspace, Outside(now=lambda: START + MINUTE, run=fine, measure=tick_within)).do()
    assert lines == ["another tick is at work"] and outcomes(store) == ["kept"]
    Tick(workspace, Outside(now=lambda: START + MINUTE, run=fine)).do()
    assert outcomes(store) == ["kept"]


def test_what_comes_due_during_a_run_is_refused_by_whoever_ticks_then(workspace: Workspace) -> None:
    store = add(workspace, missed="all")
    now = [START + MINUTE]

    def long(root: Path, run: Run, attempt: int, log: Path) -> int:
        assert store.register(run.id, attempt, now[0], {}, ProcessIdentity.mine())
        now[0] += 3 * MINUTE
        inner = Tick(workspace, Outside(now=lambda: now[0], run=long)).do()
        assert len(inner.lines) == 3 and all("was at work" in line for line in inner.lines)
        now[0] += MINUTE / 2
        store.note(run.id, Kind.ENDED, now[0], {"outcome": "kept", "reason": ""}, attempt=attempt)
        return 0

    Tick(workspace, Outside(now=lambda: now[0], run=long)).do()
    assert outcomes(store) == ["kept", "refused", "refused", "refused"]


def test_a_run_waits_for_another_command_and_then_is_refused(workspace: Workspace) -> None:
    store = add(workspace, "1 12 * * *", grace_minutes=5)
    with driver_lock(workspace.root):
        assert workspace_holder(workspace.root) == f"process {os.getpid()}"
        for minutes in (1, 3):
            Tick(workspace, Outside(now=lambda late=minutes: START + late * MINUTE, run=fine)).do()  # type: ignore[misc]  # bound now
            assert outcomes(store) == ["waiting"]
        with pytest.raises(Failure, match="is working in"):
            Tick(workspace, Outside(run=fine)).run_now("test")
        Tick(workspace, Outside(now=lambda: START + 6 * MINUTE, run=fine)).do()
    assert workspace_holder(workspace.root) is None
    [run] = store.history()
    assert (
        run.final is not None
        and "has been working in the workspace for 5 minutes" in run.final.document["reason"]
    )
    # Where it is free again in time, the run is done.
    store.define(Schedule("late", "8 12 * * *"), START + 7 * MINUTE, new=True)
    with driver_lock(workspace.root):
        Tick(workspace, Outside(now=lambda: START + 9 * MINUTE, run=fine)).do()
    Tick(workspace, Outside(now=lambda: START + 10 * MINUTE, run=fine)).do()
    assert outcomes(store) == ["refused", "kept"]


def test_a_run_whose_process_is_always_killed_is_given_up(workspace: Workspace) -> None:
    store = add(workspace, "1 12 * * *")
    for minutes in range(1, MOST_ATTEMPTS + 2):
        now = START + minutes * MINUTE
        report = Tick(workspace, Outside(now=lambda late=now: late, run=lambda *_: -9)).do()  # type: ignore[misc]  # bound now
    [run] = store.history()
    assert run.outcome == "failed" and run.attempts == MOST_ATTEMPTS and report.failed == ["test"]


def test_a_process_that_says_nothing_is_a_failure(workspace: Workspace) -> None:
    store = add(workspace, "1 12 * * *")
    report = Tick(workspace, Outside(now=lambda: START + MINUTE, run=lambda *_: 3)).do()
    assert outcomes(store) == ["failed"] and "ended with status 3 before it could say why" in report.lines[-1]


def test_a_condition_that_cannot_be_computed_fails_the_run_and_not_the_tick(workspace: Workspace) -> None:
    workspace.labels_path.write_bytes(b"this is no database, but long enough to be looked at as one" * 20)
    store = add(workspace, "1 12 * * *", when="labelled_episodes>=1")
    report = Tick(workspace, Outside(now=lambda: START + MINUTE, run=fine)).do()
    assert outcomes(store) == ["failed"] and "the condition cannot be computed" in report.lines[0]


def test_a_run_of_another_machine_is_left_alone_while_it_may_be_at_work(workspace: Workspace) -> None:
    store = add(workspace, "1 12 * * *")
    elsewhere = ProcessIdentity("another-machine", os.getpid(), "born")

    def dies(*_: object) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tick(workspace, Outside(now=lambda: START + MINUTE, me=lambda: elsewhere, run=dies)).do()
    Tick(workspace, Outside(now=lambda: START + 3 * MINUTE, run=fine)).do()
    assert outcomes(store) == ["begun"]
    Tick(workspace, Outside(now=lambda: START + 7 * MINUTE, run=fine)).do()
    assert outcomes(store) == ["kept"] and store.history()[0].attempts == 2


def test_a_schedule_that_is_removed_takes_its_waiting_runs_along(workspace: Workspace) -> None:
    store = add(workspace, "1 12 * * *")
    with driver_lock(workspace.root):
        Tick(workspace, Outside(now=lambda: START + MINUTE, run=fine)).do()
    store.remove("test", START + 2 * MINUTE)
    store.define(Schedule("test", "0 0 * * *"), START + 3 * MINUTE, new=True)
    Tick(workspace, Outside(now=lambda: START + 4 * MINUTE, run=fine)).do()
    assert outcomes(store) == ["dropped"]


def test_by_hand_a_run_needs_neither_time_nor_condition(workspace: Workspace) -> None:
    store = add(workspace, "0 0 1 1 *", when="labelled_episodes>=1000")
    Tick(workspace, Outside(now=lambda: START + MINUTE, run=fine)).run_now("test")
    [run] = store.history()
    assert run.by_hand and run.outcome == "kept"
    with pytest.raises(InputError, match="no schedule 'none'"):
        Tick(workspace).run_now("none")


def test_the_database_refuses_to_change_what_has_happened(workspace: Workspace) -> None:
    store = add(workspace)
    Tick(workspace, Outside(now=lambda: START + MINUTE, run=fine)).do()
    assert store.path.stat().st_mode & 0o077 == 0
    database = sqlite3.connect(store.path)
    for statement in ("DELETE FROM runs", "UPDATE events SET at = ''", "DELETE FROM definitions"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    database.close()


def test_an_attempt_that_was_replaced_does_nothing(workspace: Workspace) -> None:
    store = add(workspace, "1 12 * * *")
    for minutes in (1, 2):
        now = START + minutes * MINUTE
        Tick(workspace, Outside(now=lambda late=now: late, run=lambda *_: -9)).do()  # type: ignore[misc]  # bound now
    [run] = store.history()
    assert work(workspace.root, run.id, 1) == SUPERSEDED
    assert store.history() == [run]


@pytest.mark.parametrize("promoted", [True, False])
def test_the_summary_says_what_was_promoted_or_kept_and_why(workspace: Workspace, promoted: bool) -> None:
    store, ledger = add(workspace, "1 12 * * *"), Ledger(workspace)
    ledger.record_iteration(1, "earlier", {"reason": "an earlier one", "promoted": True})

    def improves(root: Path, run: Run, attempt: int, log: Path) -> int:
        assert store.register(run.id, attempt, START, iterations_now(workspace), ProcessIdentity.mine())
        summary = {"reason": "not better: p = 0.3", "promoted": promoted, "report": "reports/2.html"}
        ledger.record_iteration(2, "candidate", summary)
        document = summary_after(workspace, store.run(run.id), 0, "", START + 3 * MINUTE)
        store.note(run.id, Kind.ENDED, START + 3 * MINUTE, document, attempt=attempt)
        return 0

    Tick(workspace, Outside(now=lambda: START + MINUTE, run=improves)).do()
    [run] = store.history()
    assert run.final is not None
    found = {key: run.final.document[key] for key in ("outcome", "reason", "iteration", "report", "status")}
    assert found == {
        "outcome": "promoted" if promoted else "kept",
        "reason": "not better: p = 0.3",
        "iteration": 2,
        "report": "reports/2.html",
        "status": 0,
    }
    assert run.final.document["seconds"] == 120.0 and run.final.document["schedule"] == "test"
    # The same again finds nothing new.
    again = summary_after(workspace, Run(9, "test", START, 0, False, (_begun(workspace),)), 0, "", START)
    assert again["outcome"] == "unchanged"


def _begun(workspace: Workspace) -> Event:
    document = {"iterations": iterations_now(workspace), "missed": 0, "log": "x.log"}
    return Event(Kind.STARTED, START, document)
