"""What is to come of a month of schedules, worked out minute by minute by the rules in docs/schedules.md."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tests.workflows.scheduled_month import Month, Outcomes
from tests.workflows.slow_cron import MINUTE, slow_times
from workflows.schedule import Schedule


@dataclass
class _Going:
    name: str
    time: datetime
    start: datetime
    attempts: int = 0
    dead_at: datetime | None = None
    ends_at: datetime | None = None
    woken: bool = False  # a tick waits for it


def expected(month: Month, last: datetime) -> Outcomes:
    """The same, worked out minute by minute; see docs/schedules.md for the rules."""
    return _Expectation(month, last).work_out()


class _Expectation:
    def __init__(self, month: Month, last: datetime) -> None:
        self._month = month
        self._last = last
        self._found: Outcomes = {}
        self._owed: dict[str, list[datetime]] = {}
        self._overlapped: dict[str, list[datetime]] = {}
        self._pending: dict[tuple[str, datetime], tuple[int, datetime | None]] = {}
        self._going: _Going | None = None
        self._schedules: dict[str, Schedule] = {}
        self._due: dict[datetime, list[str]] = {}
        changes = sorted(month.changes, key=lambda one: one[0])
        for place, (at, name, schedule) in enumerate(changes):
            later = (time for time, other, _ in changes[place + 1 :] if other == name)
            if schedule is not None:
                for time in slow_times(schedule.cron, schedule.time_zone, at, next(later, last)):
                    self._due.setdefault(time, []).append(name)

    def work_out(self) -> Outcomes:
        moments = set(self._month.ticks) | {time for time, _, _ in self._month.changes}
        minute, acting = self._month.start, set(self._month.ticks)
        while minute <= self._last:
            following = minute + MINUTE
            for name in sorted(self._due.get(minute, [])):
                going = self._going
                if going is not None and going.start < minute and not self._over_by(minute):
                    self._overlapped.setdefault(name, []).append(minute)
                else:
                    self._owed.setdefault(name, []).append(minute)
            times = sorted(time for time in moments if minute <= time < following)
            moments -= set(times)
            while True:
                # What ends of itself does so in between.
                end = self._next_end()
                if end is not None and end < following and (not times or end <= times[0]):
                    self._something_ends(end)
                    continue
                if not times:
                    break
                now = times.pop(0)
                for time, name, schedule in self._month.changes:
                    if time == now:
                        self._change(name, schedule)
                if now in acting:
                    self._act(now)
            minute = following
        return self._found | {key: ("due", missed) for key, (missed, _) in self._pending.items()}

    def _change(self, name: str, schedule: Schedule | None) -> None:
        if schedule is not None:
            self._schedules[name] = schedule
            return
        del self._schedules[name]
        self._owed.pop(name, None)
        self._overlapped.pop(name, None)
        for key in [key for key in self._pending if key[0] == name]:
            self._found[key] = ("dropped", self._pending.pop(key)[0])

    def _over_by(self, minute: datetime) -> bool:
        going = self._going
        assert going is not None
        return going.ends_at is not None and going.ends_at <= minute

    def _next_end(self) -> datetime | None:
        going = self._going
        if going is None:
            return None
        return going.ends_at if going.ends_at is not None else going.dead_at if going.woken else None

    def _something_ends(self, now: datetime) -> None:
        going = self._going
        assert going is not None
        if going.ends_at is None:  # only the run was killed: its tick looks once more, and leaves it
            going.woken = False
            self._note(now)
            return
        missed = self._found[going.name, going.time][1]
        self._found[going.name, going.time] = ("kept", missed)
        self._going = None
        if going.woken:
            self._act(now)

    def _note(self, now: datetime) -> None:
        for name, times in self._owed.items():
            schedule = self._schedules[name]
            if not times:
                continue
            if schedule.missed == "all":
                self._pending |= {(name, time): (0, None) for time in times}
            elif schedule.missed == "skip" and now - times[-1] > timedelta(minutes=schedule.grace_minutes):
                self._found[name, times[-1]] = ("skipped", len(times) - 1)
            else:
                missed = len(times) - 1
                for key in [key for key in self._pending if key[0] == name]:
                    self._found[key] = ("merged into the next", 0)
                    missed += self._pending.pop(key)[0] + 1
                self._pending[name, times[-1]] = (missed, None)
        self._owed = {}
        self._found |= {(name, t): ("refused", 0) for name, times in self._overlapped.items() for t in times}
        self._overlapped = {}

    def _act(self, now: datetime) -> None:
        self._note(now)
        if self._going is not None:
            going = self._going
            dead = going.dead_at is not None and going.dead_at <= now and not going.woken
            if not dead or going.name in self._schedules:
                if dead and not self._month.works(now):
                    self._begin(going, now)
                return
            self._found[going.name, going.time] = ("dropped", self._found[going.name, going.time][1])
            self._going = None
        for key in sorted(self._pending, key=lambda key: (key[1], key[0])):
            missed, since = self._pending[key]
            schedule = self._schedules[key[0]]
            if self._month.works(now):
                since = since or now
                self._pending[key] = (missed, since)
                if now - since >= timedelta(minutes=schedule.grace_minutes):
                    self._found[key] = ("refused", self._pending.pop(key)[0])
            elif schedule.when and self._month.enough(now) < 50:
                self._found[key] = ("condition not met", self._pending.pop(key)[0])
            else:
                self._found[key] = ("begun", self._pending.pop(key)[0])
                self._going = _Going(key[0], key[1], now)
                self._begin(self._going, now)
                return

    def _begin(self, going: _Going, now: datetime) -> None:
        going.attempts += 1
        word, length = self._month.fate(going.name, going.time, going.attempts)
        going.dead_at = now + length if word in {"run killed", "both killed"} else None
        going.ends_at = now + length * (2 if word == "tick killed" else 1) if going.dead_at is None else None
        going.woken = word in {"fine", "run killed"}
