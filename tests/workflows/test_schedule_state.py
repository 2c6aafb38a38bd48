"""What the commands say of schedules: overdue, at work, interrupted, untold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from tests.workflows.sample_lab import add_episode
from workflows.cli import main
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Kind, Run, Schedule
from workflows.schedule_outside import Outside
from workflows.schedule_reading import ScheduleReader
from workflows.schedule_state import MARK, SchedulesState, schedules_state
from workflows.schedule_store import NewRun, ScheduleStore
from workflows.schedule_tick import Tick

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DAILY = Schedule("nightly", "0 2 * * *")


class Clock:
    """A clock that stands where it is put, and a run that takes no time."""

    def __init__(self) -> None:
        self.now = START
        self.status = 0
        self.during: Callable[[], None] = lambda: None

    def outside(self, alive: bool = True) -> Outside:
        """What a tick needs; ``alive``: whether processes of runs are."""
        return Outside(now=lambda: self.now, run=self._run, is_alive=lambda _: alive)

    def _run(self, root: Path, run: Run, attempt: int, log: Path) -> int:
        store = ScheduleStore(root)
        assert store.register(run.id, attempt, self.now, {}, ProcessIdentity.mine())
        self.during()
        if self.status == 0:
            store.note(run.id, Kind.ENDED, self.now, {"outcome": "kept", "reason": "r"}, attempt=attempt)
        return self.status


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "lab").create()
    ScheduleStore(workspace.root).define(DAILY, START, new=True)
    return workspace


@pytest.fixture
def clock() -> Clock:
    return Clock()


def look(workspace: Workspace, clock: Clock, alive: bool = True) -> SchedulesState:
    return schedules_state(workspace, clock.now, clock.outside(alive))


def test_ticks_that_come_are_seen_though_nothing_is_due(workspace: Workspace, clock: Clock) -> None:
    clock.now = START + timedelta(hours=3)
    [said] = look(workspace, clock).sentences()
    assert said == "nothing has called 'recap schedule tick' yet: nothing will run (see docs/schedules.md)"
    Tick(workspace, clock.outside()).do()
    assert look(workspace, clock).last_tick == clock.now
    assert list(look(workspace, clock).sentences()) == []
    clock.now += timedelta(minutes=9)
    assert list(look(workspace, clock).sentences()) == []
    clock.now += timedelta(hours=2)
    [said] = look(workspace, clock).sentences()
    assert said.startswith("nothing has called 'recap schedule tick' for 2 hours: nothing will run")


def test_what_is_overdue_is_counted_and_named(workspace: Workspace, clock: Clock) -> None:
    Tick(workspace, clock.outside()).do()
    clock.now = START + timedelta(days=3)
    state = look(workspace, clock)
    [said] = state.sentences()
    assert said == (
        "overdue: nothing has called 'recap schedule tick' for 3 days; "
        "nightly was due 2026-03-03 02:00 UTC and 2 times since"
    )
    assert state.line() == "1 schedule; nightly is due next, 2026-03-06 02:00 UTC"
    assert state.document()["schedules"][0]["overdue"] == ["2026-03-03T02:00:00+00:00"]
    Tick(workspace, clock.outside()).do()
    assert list(look(workspace, clock).sentences()) == []
    assert "last: nightly, 2026-03-05 02:00 UTC, kept" in look(workspace, clock).line()


def test_a_year_of_minutes_without_a_tick_is_looked_at_quickly(workspace: Workspace, clock: Clock) -> None:
    ScheduleStore(workspace.root).define(Schedule("often", "* * * * *"), START, new=True)
    Tick(workspace, clock.outside()).do()
    clock.now = START + timedelta(days=365)
    [said] = look(workspace, clock).sentences()
    assert "often was due 2026-03-02 12:01 UTC and over 999 times since" in said


def test_a_run_is_at_work_or_was_interrupted(workspace: Workspace, clock: Clock) -> None:
    clock.now = START + timedelta(days=1)
    seen: list[list[str]] = []

    def during() -> None:
        # The tick waits for the run, and no other comes: nothing is wrong with that.
        clock.now += timedelta(hours=5)
        seen.append(list(look(workspace, clock).sentences()))
        clock.now += timedelta(days=2)
        seen.append(list(look(workspace, clock).sentences()))

    clock.during, clock.status = during, -9
    Tick(workspace, clock.outside()).do()
    line = "nightly: the run of 2026-03-03 02:00 UTC is at work since 2026-03-03 12:00 UTC"
    assert seen == [[line], [line]]
    said = list(look(workspace, clock, alive=False).sentences())
    assert said[0] == ("nightly: the run of 2026-03-03 02:00 UTC was interrupted: the next tick continues it")


def recap(capsys: pytest.CaptureFixture[str], workspace: Workspace, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([*words, "--workspace", str(workspace.root)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_both_commands_say_it(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """The schedule was added in March, nothing ever ticked."""
    listed = recap(capsys, workspace, "schedule", "list")[1]
    status = recap(capsys, workspace, "status")[1]
    overdue = next(line for line in listed.splitlines() if line.startswith("overdue: "))
    assert "nightly was due 2026-03-03 02:00 UTC and " in overdue
    assert f"schedules: {overdue}\n" in status and "\nschedules: 1 schedule; nightly is due next, " in status
    document = json.loads(recap(capsys, workspace, "schedule", "list", "--json")[1])
    assert document["sentences"] == [overdue] and document["last_tick"] is None
    assert json.loads(recap(capsys, workspace, "status", "--json")[1])["schedules"] == document


def test_a_workspace_without_schedules_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace(tmp_path).create()
    assert "schedules" not in recap(capsys, workspace, "status")[1]
    assert recap(capsys, workspace, "schedule", "tick") == (0, "", "")
    assert not (tmp_path / MARK).exists()


def test_refusals_in_a_row_are_one_line(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    store = ScheduleStore(workspace.root)
    store.define(Schedule("often", "* * * * *"), START, new=True)

    def add(name: str, minutes: int, final: Kind) -> None:
        time = START + timedelta(minutes=minutes)
        store.insert(name, [NewRun(time, final=final, reason=f"reason {minutes}")], time)

    for minutes in range(600):
        add("often", minutes, Kind.REFUSED)
    add("nightly", 600, Kind.NOT_MET)
    add("often", 601, Kind.REFUSED)
    add("often", 602, Kind.SKIPPED)
    add("often", 603, Kind.REFUSED)
    status, out, _ = recap(capsys, workspace, "schedule", "history")
    lines = out.splitlines()[-5:]
    assert status == 0 and len(out.splitlines()) == 6
    assert lines[0].split()[:6] == ["2026-03-02", "12:00", "to", "22:01", "often", "601"]
    assert "601 x refused" in lines[0] and lines[0].endswith("reason 601")
    assert "condition not met" in lines[1] and "skipped" in lines[2] and "reason 603" in lines[3]
    assert lines[4] == "604 runs"
    only = recap(capsys, workspace, "schedule", "history", "--limit", "2")[1].splitlines()
    assert len(only) == 4 and "skipped" in only[1] and "reason 603" in only[2]
    assert len(json.loads(recap(capsys, workspace, "schedule", "history", "--json", "--limit", "7")[1])) == 7
    status, _, err = recap(capsys, workspace, "schedule", "history", "nope")
    assert status == 2 and "there is no schedule 'nope'" in err
    recap(capsys, workspace, "schedule", "remove", "often")
    assert recap(capsys, workspace, "schedule", "history", "often")[0] == 0


def test_a_run_by_hand_that_is_stopped_is_status_1(workspace: Workspace) -> None:
    add_episode(workspace, "demo-0")
    os.mkfifo(workspace.config_path)  # who reads the settings waits for ever
    command = ["schedule", "run-now", "nightly", "--workspace", str(workspace.root)]
    with subprocess.Popen(
        [sys.executable, "-m", "workflows.cli", *command], stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        reader = ScheduleReader(workspace.root)
        end = time.monotonic() + 60
        while not any(run.worker() for run in reader.open_runs()) and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1, error
    assert error == "recap: error: nightly was stopped before it had ended; the next tick continues it\n"
    said = next(iter(schedules_state(workspace).sentences()))
    assert "was interrupted: the next tick continues it" in said


def test_telling_can_be_tried_and_what_failed_is_seen(
    workspace: Workspace, clock: Clock, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, _, err = recap(capsys, workspace, "schedule", "test-notify", "nightly")
    assert status == 2 and "nightly tells nobody" in err
    assert recap(capsys, workspace, "schedule", "test-notify", "nope")[0] == 2
    said = tmp_path / "said.json"
    store = ScheduleStore(workspace.root)
    workspace.root.chmod(0o700)
    store.define(Schedule("nightly", "0 2 * * *", notify_command=f"tee {said}"), START, new=False)
    status, out, _ = recap(capsys, workspace, "schedule", "test-notify", "nightly")
    assert (status, out) == (0, "command: ok\n")
    told = json.loads(said.read_text())
    assert told["outcome"] == "test" and told["schedule"] == "nightly" and store.history() == []
    store.define(Schedule("nightly", "0 2 * * *", notify_command="false SECRET"), START, new=False)
    status, out, err = recap(capsys, workspace, "schedule", "test-notify", "nightly")
    assert status == 1 and out == "command: status 1: no word\n" and "could not tell by command" in err
    clock.now = START + timedelta(days=1)
    clock.status = 3
    Tick(workspace, clock.outside()).do()
    history = recap(capsys, workspace, "schedule", "history")[1]
    listed = recap(capsys, workspace, "schedule", "list")[1]
    assert "[not told: command: status 1: no word]" in history
    assert "nightly: the last run's end was not told: command: status 1: no word" in listed
    assert "SECRET" not in history + listed + out + err
