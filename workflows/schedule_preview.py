"""What a tick would do now, without doing it: ``recap schedule tick --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pipeline.workspace import Workspace
from workflows.schedule_conditions import measure
from workflows.schedule_decisions import Due, due_now, judge
from workflows.schedule_outside import workspace_holder
from workflows.schedule_store import ScheduleStore
from workflows.schedule_times import minute_in


def preview(workspace: Workspace, now: datetime) -> Iterator[str]:
    """A line for each thing that a tick would find, times on the clock of each schedule's own zone.

    Reads the workspace, writes nothing.
    """
    store = ScheduleStore(workspace.root)
    schedules = store.schedules()
    if not schedules:
        yield "there is no schedule: add one with 'recap schedule add'"
        return
    for run in store.open_runs():
        zone = schedules[run.schedule].time_zone if run.schedule in schedules else "UTC"
        yield f"{run.schedule}: the run of {minute_in(run.logical_time, zone)} is {run.outcome}"
    holder = workspace_holder(workspace.root)
    if holder is not None:
        yield f"{holder} is working in the workspace: runs wait, or are refused"
    for due in due_now(workspace, store, now):
        yield from _lines(workspace, due, now)


def _lines(workspace: Workspace, due: Due, now: datetime) -> Iterator[str]:
    schedule, runs, zone = due.schedule, due.runs, due.schedule.time_zone
    if due.ahead:
        yield f"{schedule.name}: {due.ahead}"
    if not runs:
        yield f"{schedule.name}: not due before {minute_in(schedule.recurrence.next_after(now), zone)}"
        return
    for run in runs:
        if run.final is not None:
            yield f"{schedule.name}: {minute_in(run.logical_time, zone)} would be {run.final}: {run.reason}"
            continue
        more = f" (and {run.missed} missed before it)" if run.missed else ""
        yield f"{schedule.name}: {minute_in(run.logical_time, zone)}{more} would be run: {schedule.command}"
    if schedule.when:
        verdict = judge(workspace, schedule, now, measure)
        if verdict.error:
            yield f"{schedule.name}: its condition cannot be computed: {verdict.error}"
            return
        held = "holds" if verdict.holds else "does not hold, so it would not run"
        yield f"{schedule.name}: {schedule.when} {held}: {verdict.said}"
