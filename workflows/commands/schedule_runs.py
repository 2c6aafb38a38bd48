"""``recap schedule list|tick|run-now|test-notify``: what there is, doing what is due, trying who is told."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import Failure, InputError
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table

if TYPE_CHECKING:
    from workflows.schedule import Schedule
    from workflows.schedule_tick import TickReport


def list_schedules(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs; secrets apart.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """The schedules, when each is due next in its own time zone, and how its last run ended or stands.

    Below them: what is at work or was interrupted, what is overdue, that nothing calls 'recap schedule tick',
    and who could not be told. Reads schedules.sqlite and the time of schedules/.last-tick only.
    """
    from workflows.schedule_state import schedules_state
    from workflows.schedule_times import minute_in

    state = schedules_state(existing_workspace(workspace))
    if as_json:
        print(json.dumps(state.document(), indent=1, ensure_ascii=False))
        return
    rows: list[list[object]] = []
    for one in state.schedules:
        schedule, last = one.schedule, one.last
        ended = minute_in(last.logical_time, schedule.time_zone) if last is not None else ""
        rows.append(
            [
                schedule.name,
                schedule.cron,
                minute_in(one.next_due, schedule.time_zone),
                "-" if last is None else f"{ended}, {state.outcome(last).partition(':')[0]}",
            ]
        )
    if rows:
        header, *lines = table(_LISTED, rows).splitlines()
        print(header)
        for one, line in zip(state.schedules, lines, strict=True):
            print("\n".join([line, *_details(one.schedule)]))
    for sentence in state.sentences():
        print(sentence)
    print(f"{len(rows)} schedule{'' if len(rows) == 1 else 's'}")


_LISTED = ("name", "cron", "next", "last run")
_WIDTH = 110  # characters of a line, where no single word is longer


def _details(schedule: Schedule) -> Iterator[str]:
    """What a schedule does, and when and for whom, in lines below its row."""
    said = (
        schedule.command,
        f"in {schedule.time_zone}, if {schedule.when or 'it is time'}; missed times: {schedule.missed}; "
        f"tells {schedule.target.words() or 'nobody'}",
    )
    for text in said:
        yield from textwrap.wrap(
            text,
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )


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
