"""``recap schedule list|tick|run-now|history``: what there is, doing what is due, and what became of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import Failure
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table

if TYPE_CHECKING:
    from workflows.schedule import Run
    from workflows.schedule_tick import TickReport


def list_schedules(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """The schedules, when each is due next, and how its last run ended. Reads schedules.sqlite only."""
    from workflows.schedule_decisions import ahead_of_clock
    from workflows.schedule_store import ScheduleStore
    from workflows.schedule_times import load_zone

    store = ScheduleStore(existing_workspace(workspace).root)
    rows, notes = [], []
    for name, definitions in store.definitions().items():
        schedule = definitions[-1].schedule
        if ahead := ahead_of_clock(store, definitions, _now()):
            notes.append(f"{name}: {ahead}")
        zone = load_zone(schedule.time_zone)
        last = store.last_run(name)
        rows.append(
            [
                name,
                schedule.cron,
                schedule.time_zone,
                schedule.recurrence.next_after(_now()).astimezone(zone).strftime("%Y-%m-%d %H:%M"),
                schedule.when or "always",
                schedule.missed,
                shlex.join(schedule.options) or "-",
                schedule.target.words() or "nobody",
                "-"
                if last is None
                else f"{last.logical_time.astimezone(zone):%Y-%m-%d %H:%M} {last.outcome}",
            ]
        )
    if rows:
        print(table(_LISTED, rows))
    for note in notes:
        print(note)
    print(f"{len(rows)} schedule{'' if len(rows) == 1 else 's'}")


_LISTED = ("name", "cron", "time zone", "next", "condition", "missed", "options", "tells", "last run")


def tick(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is due, and what would become of it.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Does what is due now, and waits for it to end. To be called every minute; silent if nothing is due.

    Reads the workspace, writes schedules.sqlite and, per run, a log in schedules/. May be called twice at
    once and killed at any time. Exit status 1 where a run failed.
    """
    from workflows.schedule_preview import preview
    from workflows.schedule_tick import Tick

    found = existing_workspace(workspace)
    if dry_run:
        for line in preview(found, _now()):
            print(line)
        return
    _tell(Tick(found).do())


def run_now(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Runs a schedule's command at once, whatever the time and the condition, and waits for it to end.

    Reads the workspace, writes schedules.sqlite and a log in schedules/; tells whom the schedule tells. Its
    times stay as they are. Refused while another run or command is at work.
    """
    from workflows.schedule_tick import Tick

    _tell(Tick(existing_workspace(workspace)).run_now(name))


def history(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only of this schedule; default: of all.")
    ] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="All that is noted, secrets apart, as JSON.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """The newest runs and what became of them, oldest first. Reads schedules.sqlite only."""
    from workflows.schedule_store import ScheduleStore

    runs = ScheduleStore(existing_workspace(workspace).root).history(name, limit)
    if as_json:
        documents = [
            {
                "schedule": run.schedule,
                "logical_time": run.logical_time.isoformat(),
                "outcome": run.outcome,
                "missed": run.missed,
                "by_hand": run.by_hand,
                "events": [
                    {"kind": str(event.kind), "at": event.at.isoformat(), **_shown(event.document)}
                    for event in run.events
                ],
            }
            for run in runs
        ]
        print(json.dumps(documents, indent=1, ensure_ascii=False))
        return
    rows = [
        [
            f"{run.logical_time:%Y-%m-%d %H:%M}",
            run.schedule,
            run.outcome + (" (by hand)" if run.by_hand else ""),
            run.attempts,
            _reason(run),
        ]
        for run in runs
    ]
    if rows:
        print(table(("due (UTC)", "schedule", "outcome", "attempts", "reason"), rows))
    print(f"{len(rows)} run{'' if len(rows) == 1 else 's'}")


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    from workflows.schedule import Schedule

    return {
        k: Schedule.shown(value) if k == "schedule" and isinstance(value, dict) else value
        for k, value in document.items()
    }


def _reason(run: Run) -> str:
    event = run.final or (run.events[-1] if run.events else None)
    reason = " ".join(str(event.document.get("reason", "")).split()) if event is not None else ""
    return reason if len(reason) <= 100 else f"{reason[:99]}…"


def _tell(report: TickReport) -> None:
    for line in report.lines:
        print(line, flush=True)
    if report.failed:
        raise Failure(f"a run failed: {', '.join(report.failed)}")


def _now() -> datetime:
    return datetime.now(UTC)
