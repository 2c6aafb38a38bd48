"""A month of schedules on a clock that is moved by hand, with ticks, runs, kills and people in it.

The schedules' own code is real, database included; only time, processes and runs are made up.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.workspace import Workspace
from tests.workflows.slow_cron import MINUTE, slow_times
from workflows.notifications import Target
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Kind, Run, Schedule
from workflows.schedule_conditions import Condition
from workflows.schedule_outside import Outside
from workflows.schedule_store import ScheduleStore
from workflows.schedule_tick import Tick

HOST = ProcessIdentity.mine().host
Fate = tuple[str, timedelta]  # fine, run killed, tick killed, both killed; and after how long


class Killed(BaseException):
    """SIGKILL of a tick: nothing that it would have done after is done."""


@dataclass(frozen=True)
class Month:
    """What happens: when somebody ticks, who changes what, when another command works, how runs fare."""

    start: datetime
    ticks: tuple[datetime, ...]
    changes: tuple[tuple[datetime, str, Schedule | None], ...]
    others: tuple[tuple[datetime, datetime], ...]
    seed: int

    def fate(self, name: str, time: datetime, attempt: int) -> Fate:
        """How an attempt at a run fares."""
        draw = random.Random(f"{self.seed} {name} {time} {attempt}")
        word = (
            "fine"
            if attempt > 3
            else draw.choice(["fine"] * 7 + ["run killed", "tick killed", "both killed"])
        )
        return word, timedelta(minutes=draw.choice([0, 1, 5, 20, 40, 90, 400]))

    def works(self, now: datetime) -> bool:
        """Whether another command works in the workspace."""
        return any(first <= now < last for first, last in self.others)

    def enough(self, now: datetime) -> float:
        """What the condition asks for: 60 on four days of five, 40 on the fifth."""
        return 40.0 if now.timetuple().tm_yday % 5 == 0 else 60.0


Outcomes = dict[tuple[str, datetime], tuple[str, int]]


@dataclass
class World:
    """The month as it is lived: ticks that are real, in a workspace that is real."""

    month: Month
    workspace: Workspace
    now: datetime = field(init=False)
    alive: set[int] = field(default_factory=set)
    alone: list[tuple[datetime, Run, int, int]] = field(default_factory=list)
    notices: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, datetime]] = field(default_factory=Counter)
    _pid: int = 0

    def __post_init__(self) -> None:
        """Sets the clock."""
        self.now = self.month.start
        self.store = ScheduleStore(self.workspace.root)
        happenings: list[tuple[datetime, int, Any]] = [(time, 1, None) for time in self.month.ticks]
        happenings += [(time, 0, (name, schedule)) for time, name, schedule in self.month.changes]
        self._happenings = sorted(happenings, key=lambda one: one[:2])

    def live(self) -> None:
        """Lets everything happen, in order, and those end that are alone at the end."""
        self._until(None)
        self.now += timedelta(days=1)
        self._end_those_alone()

    def _until(self, end: datetime | None) -> None:
        while self._happenings and (end is None or self._happenings[0][0] < end):
            time, is_tick, change = self._happenings.pop(0)
            self.now = max(self.now, time)
            self._end_those_alone()
            if is_tick:
                self._tick()
            else:
                self._change(*change)

    def _change(self, name: str, schedule: Schedule | None) -> None:
        if schedule is None:
            self.store.remove(name, self.now)
        else:
            self.store.define(schedule, self.now, new=name not in self.store.schedules())

    def _born(self) -> ProcessIdentity:
        self._pid += 1
        self.alive.add(self._pid)
        return ProcessIdentity(HOST, self._pid, "made up")

    def _tick(self) -> None:
        me = self._born()

        def run(root: Path, run: Run, attempt: int, log: Path) -> int:
            return self._attempt(run, attempt, me.pid)

        outside = Outside(
            now=lambda: self.now,
            measure=lambda workspace, condition, now: self._measure(condition),
            holder=lambda root: "somebody" if self.month.works(self.now) else None,
            me=lambda: me,
            is_alive=lambda identity: identity.pid in self.alive,
            run=run,
            tell=self._tell,
        )
        with suppress(Killed):
            Tick(self.workspace, outside).do()
        self.alive.discard(me.pid)

    def _attempt(self, run: Run, attempt: int, supervisor: int) -> int:
        worker = self._born()
        assert self.store.register(run.id, attempt, self.now, {}, worker)
        word, length = self.month.fate(run.schedule, run.logical_time, attempt)
        end = self.now + length
        if word == "tick killed":
            # The run goes on for as long again, and nobody is there when it ends.
            self.alone.append((end + length, run, attempt, worker.pid))
            self._until(end)
        else:
            self._until(end)
            self.alive.discard(worker.pid)
        self.now = max(self.now, end)
        if word in {"tick killed", "both killed"}:
            self.alive.discard(supervisor)
            raise Killed
        if word == "run killed":
            return -9
        self._end(run, attempt, self.now)
        return 0

    def _end(self, run: Run, attempt: int, at: datetime) -> None:
        document = {"outcome": "kept", "reason": "made up"}
        assert self.store.note(run.id, Kind.ENDED, at, document, attempt=attempt, notify=True)
        self.ended[run.schedule, run.logical_time] += 1

    def _end_those_alone(self) -> None:
        for one in [one for one in self.alone if one[0] <= self.now]:
            self.alone.remove(one)
            end, run, attempt, pid = one
            self.alive.discard(pid)
            self._end(run, attempt, end)

    def _measure(self, condition: Condition) -> dict[str, float]:
        return {name: self.month.enough(self.now) for name in condition.names}

    def _tell(self, target: Target, summary: Mapping[str, Any]) -> dict[str, str]:
        self.notices[str(summary["outcome"])] += 1
        return {"url": "ok"}

    def outcomes(self) -> Outcomes:
        """What became of each logical time that is noted: and for how many missed ones it was run."""
        found: Outcomes = {}
        for run in self.store.history():
            made_up_for = run.missed + self.store.made_up_for(run.id)
            missed = run.as_started["missed"] if run.attempts else made_up_for
            found[run.schedule, run.logical_time] = (run.outcome, missed)
        return found


def make_month(start: datetime, seed: int, days: int = 31) -> Month:
    """A month with two clocks changed, outages, restarts, and people who change their minds."""
    draw = random.Random(seed)
    end = start + timedelta(days=days)

    def some_time() -> datetime:
        # Never on a whole minute, since then the order in which two things happen would be chance.
        return start + timedelta(minutes=draw.randrange(60, days * 1440 - 60), seconds=30)

    nightly = Schedule("nightly", "30 2 * * *", "Europe/Berlin", when="new_labelled_episodes>=50")
    often = Schedule("often", "15 */6 * * *", "America/New_York", missed="all")
    small = Schedule("small", "0,30 2 * * *", "Europe/Berlin", missed="skip", grace_minutes=10)
    gone = some_time()
    changes: list[tuple[datetime, str, Schedule | None]] = [
        (start, "nightly", nightly),
        (start, "often", often),
        (start, "small", small),
        (some_time(), "nightly", replace(nightly, time_zone="Asia/Tokyo")),
        (some_time(), "often", replace(often, cron="45 1-23/4 * * 1-5", time_zone="Europe/London")),
        (gone, "small", None),
        (gone + timedelta(hours=30, seconds=5), "small", small),
    ]
    times = {time for _, _, schedule in changes if schedule for time in _of(schedule, start, end)}
    outages = [
        (time, time + timedelta(hours=draw.choice([1, 5, 30]))) for time in (some_time() for _ in range(5))
    ]
    # Somebody ticks at each of the times, unless there is an outage or it is forgotten; and at other times.
    second = draw.choice([0, 7, 45])
    ticks = {time + MINUTE * draw.choice([0, 0, 0, 1, 3]) for time in times if draw.random() < 0.9}
    ticks |= {some_time().replace(second=0) for _ in range(50)}
    up = {time for time in ticks if not any(first <= time < last for first, last in outages)}
    # The last ones let everything come to its end.
    final = {end + timedelta(hours=20 * n) for n in range(1, 6)}
    others = tuple(
        (time, time + timedelta(minutes=draw.choice([3, 50]))) for time in (some_time() for _ in range(12))
    )
    return Month(
        start,
        tuple(sorted(time + timedelta(seconds=second) for time in up | final)),
        tuple(changes),
        others,
        seed,
    )


def _of(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    return slow_times(schedule.cron, schedule.time_zone, start, end)


START_OF_SPRING = datetime(2026, 3, 8, 3, tzinfo=UTC)
START_OF_AUTUMN = datetime(2026, 10, 10, 3, tzinfo=UTC)
