"""``recap schedule list|tick|run-now|test-notify``: what there is, doing what is due, trying who is told."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import Failure, InputError
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table

if TYPE_CHECKING:
    from workflows.schedule_tick import TickReport


def list_schedules(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs; secrets apart.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """The schedules, when each is due next, and how its last run ended or stands.

    Below them: what is at work or was interrupted, what is overdue, that nothing calls 'recap schedule tick',
    and who could not be told. Reads schedules.sqlite and the time of schedules/.last-tick only.
    """
    from workflows.schedule_state import schedules_state
    from workflows.schedule_times import load_zone

    state = schedules_state(existing_workspace(workspace))
    if as_json:
        print(json.dumps(state.document(), indent=1, ensure_ascii=False))
        return
    rows: list[list[object]] = []
    for one in state.schedules:
        schedule, last = one.schedule, one.last
        zone = load_zone(schedule.time_zone)
        ended = f"{last.logical_time.astimezone(zone):%Y-%m-%d %H:%M}" if last is not None else ""
        rows.append(
            [
                schedule.name,
                schedule.cron,
                schedule.time_zone,
                f"{one.next_due.astimezone(zone):%Y-%m-%d %H:%M}",
                schedule.when or "always",
                schedule.missed,
                shlex.join(schedule.options) or "-",
                schedule.target.words() or "nobody",
                "-" if last is None else f"{ended} {state.outcome(last).partition(':')[0]}",
            ]
        )
    if rows:
        print(table(_LISTED, rows))
    for sentence in state.sentences():
        print(sentence)
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
    times stay as they are. Refused while another run or command is at work. Exit status 1 where the run
    failed or was stopped.
    """
    from workflows.schedule_tick import Tick

    report = Tick(existing_workspace(workspace)).run_now(name)
    _tell(report)
    if report.interrupted:
        raise Failure(f"{name} was stopped before it had ended; the next tick continues it")


def test_notify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Tells whom the schedule tells, now, with a summary whose outcome is 'test'. Runs and notes nothing.

    Reads schedules.sqlite. Exit status 1 where somebody could not be told.
    """
    from workflows.schedule_outside import Outside
    from workflows.schedule_reading import ScheduleReader
    from workflows.schedule_summary import trial

    found = existing_workspace(workspace)
    reader = ScheduleReader(found.root)
    schedule = reader.schedules().get(name)
    if schedule is None:
        raise InputError(f"there is no schedule {name!r}: see 'recap schedule list'")
    if not schedule.target.is_set:
        raise InputError(
            f"{name} tells nobody: give it --notify-url or --notify-command by 'recap schedule change {name}'"
        )
    said = Outside().tell_safely(schedule.target, trial(found, name, _now()), reader.path)
    for whom, answer in said.items():
        print(f"{whom}: {answer}")
    failed = [whom for whom, answer in said.items() if answer != "ok"]
    if failed:
        raise Failure(f"{name} could not tell by {' and '.join(failed)}, see above")


def _tell(report: TickReport) -> None:
    for line in report.lines:
        print(line, flush=True)
    if report.failed:
        raise Failure(f"a run failed: {', '.join(report.failed)}")


def _now() -> datetime:
    return datetime.now(UTC)
