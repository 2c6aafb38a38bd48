"""How the schedules of a workspace stand: due next, overdue, at work or interrupted, and whether ticks come.

A tick that has nothing to do leaves no trace in ``schedules.sqlite``; so that it can be told from one that
nobody calls any more, each sets the time of an empty file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.workspace import Workspace
from workflows.schedule import Kind, Run, Schedule
from workflows.schedule_decisions import ahead_of_clock
from workflows.schedule_due import CLOCK_SLACK, due_times
from workflows.schedule_outside import Outside
from workflows.schedule_reading import Definition, ScheduleReader
from workflows.schedule_times import minute_in
from workflows.time_words import age_in_words

MARK = "schedules/.last-tick"
QUIET = timedelta(minutes=10)
"""Ticks are to come every minute. After this long without one, something is wrong."""
_COUNTED = 1000  # overdue times, at most


@dataclass(frozen=True)
class ScheduleState:
    """One schedule: there since, due next (UTC), ``overdue`` times that no tick has seen, its last run."""

    schedule: Schedule
    since: datetime
    next_due: datetime
    overdue: tuple[datetime, ...]
    last: Run | None
    ahead: str

    @property
    def untold(self) -> str:
        """Whom the end of the last run could not be told to, and why; else empty."""
        return untold(self.last) if self.last is not None else ""


@dataclass(frozen=True)
class SchedulesState:
    """All schedules by name; ``begun`` is the run that was begun and has not ended, if any.

    ``at_work``: whether somebody is on that run, or it was interrupted.
    ``last_tick`` is when anything last called 'recap schedule tick'; ``None``: never, as far as is known.
    """

    now: datetime
    schedules: tuple[ScheduleState, ...]
    begun: Run | None
    at_work: bool
    last_tick: datetime | None

    def sentences(self) -> Iterator[str]:
        """What somebody ought to know or do, a line each; none where all goes its way."""
        if self.begun is not None:
            run = self.begun
            when = self._minute(run.schedule, run.logical_time)
            yield f"{run.schedule}: the run of {when} {self.outcome(run)}"
        late = self._late()
        if late:
            yield late
        for state in self.schedules:
            if state.ahead:
                yield f"{state.schedule.name}: {state.ahead}"
            if state.untold:
                yield f"{state.schedule.name}: the last run's end was not told: {state.untold}"

    def outcome(self, run: Run) -> str:
        """What became of a run, or how it stands."""
        if self.begun is None or run.id != self.begun.id:
            return run.outcome
        if not self.at_work:
            return "was interrupted: the next tick continues it"
        return f"is at work since {self._minute(run.schedule, run.started or run.logical_time)}"

    def _late(self) -> str:
        """That no tick comes, and what is overdue since; empty while a run is at work, whose tick waits."""
        if not self.schedules or (self.begun is not None and self.at_work):
            return ""
        overdue = {
            s.schedule.name: s.overdue for s in self.schedules if s.overdue and self._old(s.overdue[0])
        }
        missed = "; ".join(
            f"{name} was due {self._minute(name, times[0])}"
            + (
                f" and {'over ' if len(times) == _COUNTED else ''}{len(times) - 1} times since"
                if times[1:]
                else ""
            )
            for name, times in overdue.items()
        )
        if self.last_tick is not None and not self._old(self.last_tick):
            return ""
        if self.last_tick is not None:
            said = f"nothing has called 'recap schedule tick' for {age_in_words(self.now - self.last_tick)}"
        elif self._old(min(state.since for state in self.schedules)):
            said = "nothing has called 'recap schedule tick' yet"
        else:
            return ""
        return f"overdue: {said}; {missed}" if missed else f"{said}: nothing will run (see docs/schedules.md)"

    def _old(self, moment: datetime) -> bool:
        return self.now - moment > QUIET

    def line(self) -> str:
        """All of them in a line; empty where there is none."""
        if not self.schedules:
            return ""
        first = min(self.schedules, key=lambda state: state.next_due)
        due = self._minute(first.schedule.name, first.next_due)
        said = [f"{first.schedule.name} is due next, {due}"]
        runs = [state.last for state in self.schedules if state.last is not None]
        if runs:
            last = max(runs, key=lambda run: run.logical_time)
            when = self._minute(last.schedule, last.logical_time)
            said.append(f"last: {last.schedule}, {when}, {self.outcome(last)}")
        number = len(self.schedules)
        return f"{number} schedule{'' if number == 1 else 's'}; {'; '.join(said)}"

    def _minute(self, name: str, moment: datetime) -> str:
        """A moment on the clock of a schedule's own zone; in UTC for one that was removed."""
        zones = {state.schedule.name: state.schedule.time_zone for state in self.schedules}
        return minute_in(moment, zones.get(name, "UTC"))

    def document(self) -> dict[str, Any]:
        """The same as plain JSON, secrets apart."""
        return {
            "last_tick": None if self.last_tick is None else self.last_tick.isoformat(timespec="seconds"),
            "sentences": list(self.sentences()),
            "schedules": [
                {
                    **Schedule.shown(state.schedule.to_json()),
                    "next": state.next_due.isoformat(),
                    "overdue": [time.isoformat() for time in state.overdue[:1]],
                    "last_run": None if state.last is None else self._run(state.last),
                }
                for state in self.schedules
            ],
        }

    def _run(self, run: Run) -> dict[str, Any]:
        return {
            "logical_time": run.logical_time.isoformat(),
            "outcome": run.outcome,
            "state": self.outcome(run),
            "attempts": run.attempts,
            "not_told": untold(run),
        }


def schedules_state(
    workspace: Workspace, now: datetime | None = None, outside: Outside | None = None
) -> SchedulesState:
    """Looks at the schedules. Reads only; errors are those of the database."""
    outside = outside or Outside()
    now = now or outside.now()
    reader = ScheduleReader(workspace.root)
    begun = next((run for run in reader.open_runs() if run.attempts), None)
    at_work = begun is not None and outside.is_at_work(begun, workspace.root, now)
    states = tuple(_state(reader, definitions, now) for definitions in reader.definitions().values())
    return SchedulesState(now, states, begun, at_work, last_tick(workspace.root))


def _state(reader: ScheduleReader, definitions: list[Definition], now: datetime) -> ScheduleState:
    schedule = definitions[-1].schedule
    newest = reader.newest_time(schedule.name, now + CLOCK_SLACK)
    return ScheduleState(
        schedule,
        definitions[0].at,
        schedule.recurrence.next_after(now),
        tuple(due_times(definitions, newest, now, at_most=_COUNTED)),
        reader.last_run(schedule.name),
        ahead_of_clock(reader, definitions, now),
    )


def untold(run: Run) -> str:
    """Whom the end of a run could not be told to, and why; empty where all were told or nobody is to be."""
    told = run.last(Kind.NOTIFIED)
    if told is None:
        return ""
    return "; ".join(f"{whom}: {answer}" for whom, answer in sorted(told.document.items()) if answer != "ok")


def mark_tick(root: Path, now: datetime) -> None:
    """Notes that a tick looked at the clock. Needs no room on the disk once the file is there."""
    path = root / MARK
    with suppress(OSError):  # a tick does not fail over it
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (now.timestamp(), now.timestamp()))


def last_tick(root: Path) -> datetime | None:
    """When a tick last looked at the clock."""
    with suppress(OSError):
        return datetime.fromtimestamp((root / MARK).stat().st_mtime, UTC)
    return None
