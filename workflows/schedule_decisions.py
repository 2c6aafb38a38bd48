"""What a tick decides before it does anything: the runs to note, and whether a condition holds.

Nothing here writes. A tick carries the decisions out; ``recap schedule tick --dry-run`` prints the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pipeline.errors import Failure, InputError, one_line
from pipeline.workspace import Workspace
from workflows.schedule import Kind, Run, Schedule
from workflows.schedule_conditions import Condition
from workflows.schedule_due import CLOCK_SLACK, plan
from workflows.schedule_reading import Definition, ScheduleReader
from workflows.schedule_store import NewRun, ScheduleStore
from workflows.schedule_summary import refusal


@dataclass(frozen=True)
class Due:
    """What the clock makes of one schedule: the runs to note, oldest first; ``ahead`` is a note or empty."""

    schedule: Schedule
    runs: Sequence[NewRun]
    ahead: str


@dataclass(frozen=True)
class Verdict:
    """Whether a condition holds, and on which numbers; ``error`` says why that cannot be told."""

    holds: bool
    facts: Mapping[str, float | str] = field(default_factory=dict)
    error: str = ""

    @property
    def said(self) -> str:
        """The numbers, in words."""
        return ", ".join(f"{name} is {_number(value)}" for name, value in self.facts.items())


def due_now(workspace: Workspace, store: ScheduleStore, now: datetime) -> Iterator[Due]:
    """What is due of each schedule, by name."""
    for name, definitions in store.definitions().items():
        newest = store.newest_time(name, now + CLOCK_SLACK)
        since = definitions[0].at if newest is None else max(newest, definitions[0].at)
        begun = store.begun_since(min(since, now))
        runs = plan(definitions, newest, begun, now)
        schedule = definitions[-1].schedule
        told = list(_with_summaries(workspace, store, schedule, runs, {run.id: run for run in begun}, now))
        yield Due(schedule, told, ahead_of_clock(store, definitions, now))


def _with_summaries(
    workspace: Workspace,
    store: ScheduleStore,
    schedule: Schedule,
    runs: Sequence[NewRun],
    begun: Mapping[int, Run],
    now: datetime,
) -> Iterator[NewRun]:
    """The same; of the first that each run at work has refused, somebody is told: it may hang."""
    told: set[int] = set()
    for run in runs:
        if run.final is Kind.REFUSED and run.by is not None and run.by not in told:
            told.add(run.by)
            if schedule.target.is_set and not store.has_refused(begun[run.by], schedule.name):
                as_noted = Run(0, schedule.name, run.logical_time, run.missed)
                yield replace(run, summary=refusal(workspace, as_noted, run.reason, now), tell=True)
                continue
        yield run


def ahead_of_clock(store: ScheduleReader, definitions: Sequence[Definition], now: datetime) -> str:
    """A sentence where something was noted of a time that is yet to come; else empty."""
    count, newest = store.times_after(definitions[-1].name, now + CLOCK_SLACK)
    said = []
    if newest is not None:
        said.append(
            f"noted times that are yet to come are passed over ({count}, to {newest:%Y-%m-%d %H:%M} UTC)"
        )
    if definitions[-1].at > now + CLOCK_SLACK:
        said.append(f"it holds from {definitions[-1].at:%Y-%m-%d %H:%M} UTC on only: give the change again")
    return f"the clock is wrong, or was: {'; '.join(said)}" if said else ""


def judge(
    workspace: Workspace,
    schedule: Schedule,
    now: datetime,
    measure: Callable[[Workspace, Condition, datetime], Mapping[str, float]],
) -> Verdict:
    """Whether the condition of a schedule holds. Never raises: what cannot be read is that run's failure."""
    try:
        numbers = measure(workspace, schedule.condition, now)
    except (InputError, Failure) as error:
        return Verdict(False, error=one_line(error, None))
    except Exception as error:
        return Verdict(False, error=f"{type(error).__name__}: {one_line(error, None)}")
    facts: dict[str, float | str] = {n: x if math.isfinite(x) else "infinite" for n, x in numbers.items()}
    return Verdict(schedule.condition.holds(numbers), facts)


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
