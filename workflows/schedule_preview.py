"""What a tick would do now, without doing it: ``recap schedule tick --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from workflows.schedule import Schedule
from workflows.schedule_conditions import measure
from workflows.schedule_due import plan
from workflows.schedule_outside import workspace_holder
from workflows.schedule_store import NewRun, ScheduleStore


def preview(workspace: Workspace, now: datetime) -> Iterator[str]:
    """A line for each thing that a tick would find. Reads the workspace, writes nothing."""
    store = ScheduleStore(workspace.root)
    definitions = store.definitions()
    if not definitions:
        yield "there is no schedule: add one with 'recap schedule add'"
        return
    for run in store.open_runs():
        yield f"{run.schedule}: the run of {_minute(run.logical_time)} is {run.outcome}"
    holder = workspace_holder(workspace.root)
    if holder is not None:
        yield f"{holder} is working in the workspace: runs wait, or are refused"
    for name, found in definitions.items():
        newest = store.newest_time(name)
        since = found[0].at if newest is None else max(newest, found[0].at)
        runs = plan(found, newest, store.begun_since(since), now)
        yield from _lines(workspace, found[-1].schedule, runs, now)


def _lines(workspace: Workspace, schedule: Schedule, runs: list[NewRun], now: datetime) -> Iterator[str]:
    if not runs:
        yield f"{schedule.name}: not due before {_minute(schedule.recurrence.next_after(now))}"
        return
    for run in runs:
        if run.final is not None:
            yield f"{schedule.name}: {_minute(run.logical_time)} would be {run.final}: {run.reason}"
            continue
        more = f" (and {run.missed} missed before it)" if run.missed else ""
        yield f"{schedule.name}: {_minute(run.logical_time)}{more} would be run: {schedule.command}"
    if schedule.when:
        try:
            numbers = measure(workspace, schedule.condition, now)
        except (InputError, Failure) as error:
            yield f"{schedule.name}: its condition cannot be computed: {error}"
            return
        said = ", ".join(f"{name} is {number:.6g}" for name, number in numbers.items())
        verdict = "holds" if schedule.condition.holds(numbers) else "does not hold, so it would not run"
        yield f"{schedule.name}: {schedule.when} {verdict}: {said}"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
