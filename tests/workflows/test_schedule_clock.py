"""A clock that was wrong for a while: schedules go on when it is right again, and nothing runs twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from workflows.cli import main
from workflows.driver_lock import driver_lock
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Kind, Run, Schedule
from workflows.schedule_outside import Outside
from workflows.schedule_preview import preview
from workflows.schedule_store import ScheduleStore
from workflows.schedule_tick import Tick

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAR = datetime(2036, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NOTE = (
    "the clock is wrong, or was: "
    "noted times that are yet to come are passed over (1, to 2036-03-01 02:00 UTC)"
)


class Lab:
    """A workspace with a clock that is moved by hand, and runs that take no time."""

    def __init__(self, root: Path, **fields: object) -> None:
        self.workspace = Workspace(root).create()
        self.store = ScheduleStore(root)
        self.now = START
        self.ran: list[datetime] = []
        self.lines: list[str] = []
        self.schedule = Schedule("nightly", "0 2 * * *", **fields)  # type: ignore[arg-type]  # as they are named
        self.store.define(self.schedule, self.now, new=True)

    def tick(self, now: datetime, ends: datetime | None = None) -> None:
        """One tick; the runs that it begins are noted to end at another time, if one is given."""
        self.now = now

        def run(root: Path, run: Run, attempt: int, log: Path) -> int:
            self.ran.append(run.logical_time)
            assert self.store.register(run.id, attempt, self.now, {}, ProcessIdentity.mine())
            document = {"outcome": "kept", "reason": ""}
            assert self.store.note(run.id, Kind.ENDED, ends or self.now, document, attempt=attempt)
            return 0

        self.lines = Tick(self.workspace, Outside(now=lambda: self.now, run=run)).do().lines

    def days(self, count: int, since: datetime) -> list[datetime]:
        """What is run in so many days of ticks; the last tick's time is the clock's."""
        self.ran = []
        for day in range(1, count + 1):
            self.tick(since + day * DAY)
        return self.ran


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab")


def nights(count: int, since: datetime) -> list[datetime]:
    first = since.replace(hour=2) + DAY
    return [first + n * DAY for n in range(count)]


def test_a_clock_that_was_ahead_does_not_stop_a_schedule(lab: Lab) -> None:
    assert lab.days(2, START) == nights(2, START)
    lab.tick(FAR)
    since = START + 2 * DAY
    assert lab.days(5, since) == nights(5, since)
    assert f"nightly: {NOTE}" in lab.lines
    assert f"nightly: {NOTE}" in list(preview(lab.workspace, lab.now))
    lab.store.remove("nightly", lab.now)
    lab.store.define(lab.schedule, lab.now, new=True)
    since = START + 7 * DAY
    assert lab.days(3, since) == nights(3, since)
    # The time itself, when it comes, has been run already.
    lab.ran = []
    lab.tick(FAR)
    assert lab.ran == [] and not [line for line in lab.lines if "clock" in line]
    assert len({run.logical_time for run in lab.store.history()}) == len(lab.store.history()) == 11


def test_the_list_says_that_the_clock_was_wrong(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["schedule", "list", "--workspace", str(lab.workspace.root)]
    assert main(words) == 0 and "clock" not in capsys.readouterr().out
    now = datetime.now(UTC)
    lab.tick(now.replace(year=now.year + 10, day=1))
    lab.days(1, now - DAY)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("nightly: the clock is wrong, or was: noted times that are yet to come ") == 1
    # The last run is the one that was noted last.
    assert lab.ran and f"{lab.ran[-1]:%Y-%m-%d %H:%M} UTC, kept" in said


def test_a_run_that_ended_on_a_wrong_clock_refuses_nothing(lab: Lab) -> None:
    lab.tick(START + DAY, ends=FAR)
    since = START + DAY
    assert lab.days(3, since) == nights(3, since)


def test_a_change_on_a_wrong_clock_holds_when_it_is_given_again(lab: Lab) -> None:
    lab.store.define(Schedule("nightly", "0 5 * * *"), FAR, new=False)
    assert lab.days(2, START) == nights(2, START)
    assert any("it holds from 2036-03-01 12:00 UTC on only" in line for line in lab.lines)
    since = START + 2 * DAY
    lab.store.define(Schedule("nightly", "0 5 * * *"), since, new=False)
    assert lab.days(2, since) == [time.replace(hour=5) for time in nights(2, since)]


def test_patience_and_other_machines_are_not_measured_by_a_wrong_clock(lab: Lab) -> None:
    with driver_lock(lab.workspace.root):
        lab.tick(FAR)
        lab.tick(START + DAY)
        lab.tick(START + DAY + timedelta(minutes=31))
    assert [run.outcome for run in lab.store.history()].count("refused") == 1
    elsewhere = ProcessIdentity("another-machine", 7, "born")

    def dies(*_: object) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tick(lab.workspace, Outside(now=lambda: FAR + DAY, me=lambda: elsewhere, run=dies)).do()
    lab.tick(START + 2 * DAY)
    assert lab.ran and not [run for run in lab.store.open_runs() if run.attempts]
