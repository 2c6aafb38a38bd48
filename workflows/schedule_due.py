"""Which runs are due: from a schedule's definitions, what is noted already, and the clock. No side effects.

A changed schedule keeps the times it had up to the moment of the change, that moment included, and has those
of the new expression and time zone after it. So a time that has run is never run again, one that was due and
missed before the change is still due after it, and none from before it becomes due by it. Logical times are
moments, not readings of a clock: on the day on which "0 2 * * *" moves to another time zone it may be due
twice or not at all, as it would for somebody who travels.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice

from workflows.schedule import Kind, Missed, Run
from workflows.schedule_store import Definition, NewRun

BACK_FILL_AT_ONCE = 1000
"""Runs that one look at the clock back-fills at most; the next look goes on."""
CLOCK_SLACK = timedelta(minutes=5)
"""How much clocks may differ. What was noted of a later time than that is of a clock that was wrong."""


def due_times(
    definitions: Sequence[Definition], newest: datetime | None, now: datetime, at_most: int | None = None
) -> list[datetime]:
    """The times after ``newest``, the last that is noted, up to ``now`` inclusive; in order, in UTC.

    ``at_most``: the oldest so many of each definition's.
    """
    times: list[datetime] = []
    # Each holds until the next one; not beyond a later one that a clock put back has given an earlier time.
    moments = [*(definition.at for definition in definitions), now]
    ends = [min(moments[i:]) for i in range(1, len(moments))]
    for definition, end in zip(definitions, ends, strict=True):
        after = definition.at if newest is None else max(definition.at, newest)
        left = at_most
        if definition.schedule.missed == Missed.ALL:
            left = max(0, min(at_most or BACK_FILL_AT_ONCE, BACK_FILL_AT_ONCE) - len(times))
        times += islice(definition.schedule.recurrence.between(after, end), left)
    return times


def plan(
    definitions: Sequence[Definition], newest: datetime | None, begun: Sequence[Run], now: datetime
) -> list[NewRun]:
    """The runs to note now, oldest first. ``begun`` are runs of any schedule that may have been at work.

    A time at which a run had begun and not ended is refused, an interruption in between notwithstanding, and
    whether or not anything ticked at that time. What the rest becomes is the schedule's own rule.
    """
    times = due_times(definitions, newest, now)
    if not times:
        return []
    schedule = definitions[-1].schedule
    refused = [(time, run) for time in times if (run := _overlapped(time, begun, now)) is not None]
    runs = [
        NewRun(
            time,
            final=Kind.REFUSED,
            reason=f"the run of {run.schedule} of {_iso(run)} was at work",
            by=run.id,
        )
        for time, run in refused
    ]
    taken = {time for time, _ in refused}
    free = [time for time in times if time not in taken]
    if free:
        runs += _by_rule(schedule.missed, free, now, timedelta(minutes=schedule.grace_minutes))
    return sorted(runs, key=lambda run: run.logical_time)


def _by_rule(rule: str, times: list[datetime], now: datetime, grace: timedelta) -> list[NewRun]:
    if rule == Missed.ALL:
        return [NewRun(time) for time in times]
    newest, missed = times[-1], len(times) - 1
    if rule == Missed.SKIP and now - newest > grace:
        late = int((now - newest).total_seconds() // 60)
        return [
            NewRun(newest, missed, final=Kind.SKIPPED, reason=f"nothing ticked until {late} minutes later")
        ]
    return [NewRun(newest, missed)]


def _overlapped(time: datetime, begun: Sequence[Run], now: datetime) -> Run | None:
    for run in begun:
        ended = run.final.at if run.final is not None else None
        if ended is not None and ended > now + CLOCK_SLACK:
            continue  # nobody knows when it ended
        if run.started is not None and run.started < time and (ended is None or time < ended):
            return run
    return None


def _iso(run: Run) -> str:
    return run.logical_time.isoformat(timespec="minutes")
