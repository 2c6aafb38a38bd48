"""``recap schedule``: turns of the loop at set times, on conditions, with a word to somebody at the end."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from pipeline.errors import InputError
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, command_group, existing_workspace
from workflows.commands.schedule_history import history
from workflows.commands.schedule_runs import list_schedules, run_now, test_notify, tick

if TYPE_CHECKING:
    from workflows.schedule import Schedule

DEFAULT_NAME = "improve"
# What typer raises for wrong options; it has no public name of its own.
_UsageError: Any = typer.BadParameter.__mro__[1]

app = command_group(
    "Run 'recap improve' at set times and on conditions. 'recap schedule tick', called every minute by cron, "
    "a systemd timer or Kubernetes, does what is due; see deploy/ and docs/schedules.md. "
    "Reads the workspace, writes schedules.sqlite and schedules/."
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
WhenOption = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="Run only if it holds, as 'new_labelled_episodes>=50 and hours_since_last_iteration>=12'; "
        "a wrong name is answered with all that there are. Default: always.",
    ),
]
ZoneOption = Annotated[
    str | None,
    typer.Option(help="IANA name of the time zone of the cron expression. Default: this machine's."),
]
MissedOption = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="What to do about times that passed while nothing ticked. once: one run for all of them; all: "
        "one run for each; skip: none, unless the newest is not older than --grace. Default: once.",
    ),
]
GraceOption = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        help="How late a run may be with '--missed skip', and how long one waits for another command that "
        "works in the workspace. Default: 30.",
    ),
]
NotifyCommandOption = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="Run at the end of each run, without a shell; gets the summary as JSON on its standard input "
        "and RECAP_OUTCOME, RECAP_REASON and others as variables.",
    ),
]
NotifyUrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Gets the summary as JSON, by POST, at the end of each run."),
]
OptionsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="-- OPTIONS", help="Options of 'recap improve', after two dashes, as -- --value-steps 800."
    ),
]


class _AddUsage(TyperCommand):
    """Says in which order the words come: the first may be left out, which a usage line cannot tell."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name."""
        return ["[OPTIONS]", "[NAME]", "CRON", "[-- OPTIONS]"]


@app.command(cls=_AddUsage)
def add(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help=f"Its name; where it is left out, {DEFAULT_NAME!r}."),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Argument(metavar="CRON", help="When: five fields in quotes, as '0 2 * * *', or @daily."),
    ] = None,
    options: OptionsArgument = None,
    when: WhenOption = None,
    time_zone: ZoneOption = None,
    missed: MissedOption = None,
    grace: GraceOption = None,
    notify_command: NotifyCommandOption = None,
    notify_url: NotifyUrlOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Adds a schedule, which is due from now on. Writes schedules.sqlite.

    For example: recap schedule add nightly '0 2 * * *' --when 'new_labelled_episodes>=50'
    """
    from workflows.schedule import Missed, Schedule
    from workflows.schedule_store import ScheduleStore
    from workflows.schedule_times import machine_zone

    found = existing_workspace(workspace)
    given = list(options or ())
    if name is not None and (" " in name or name.startswith("@")):
        # Only the expression was given; what follows it, after the dashes, are options.
        given = [*([] if cron is None else [cron]), *given]
        name, cron = DEFAULT_NAME, name
    name = DEFAULT_NAME if name is None else name
    if cron is None:
        raise InputError(f"no time is given for {name!r}: write a cron expression in quotes, as '0 2 * * *'")
    schedule = Schedule(
        name,
        cron,
        time_zone if time_zone is not None else machine_zone(),
        when or "",
        missed or Missed.ONCE,
        30.0 if grace is None else grace,
        notify_command or "",
        notify_url or "",
        tuple(given),
    )
    _check(schedule)
    # An empty folder becomes a workspace: with nothing but a database in it, it would be none.
    store = ScheduleStore(found.create().root)
    store.define(schedule, _now(), new=True)
    _show(schedule, store.path)


@app.command()
def change(
    name: NameArgument,
    options: OptionsArgument = None,
    cron: Annotated[str | None, typer.Option(metavar="CRON", help="Another cron expression.")] = None,
    when: WhenOption = None,
    time_zone: ZoneOption = None,
    missed: MissedOption = None,
    grace: GraceOption = None,
    notify_command: NotifyCommandOption = None,
    notify_url: NotifyUrlOption = None,
    no_options: Annotated[
        bool, typer.Option("--no-options", help="Run 'recap improve' without options from now on.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Changes from now on what is given, and nothing else; '' takes a text away. Writes schedules.sqlite.

    Times up to now stay as they were: no time that has run is run again, and none that was missed is lost.
    """
    from workflows.schedule_store import ScheduleStore

    if no_options and options:
        raise InputError("give options or --no-options, not both")
    store = ScheduleStore(existing_workspace(workspace).root)
    schedules = store.schedules()
    if name not in schedules:
        raise InputError(f"there is no schedule {name!r}: see 'recap schedule list'")
    given: dict[str, Any] = {
        "cron": cron,
        "when": when,
        "time_zone": time_zone,
        "missed": missed,
        "grace_minutes": grace,
        "notify_command": notify_command,
        "notify_url": notify_url,
        "options": tuple(options or ()) if options or no_options else None,
    }
    schedule = replace(schedules[name], **{key: value for key, value in given.items() if value is not None})
    _check(schedule)
    store.define(schedule, _now(), new=False)
    _show(schedule, store.path)


@app.command()
def remove(name: NameArgument, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Removes a schedule; its history stays, and a run at work goes on. Writes schedules.sqlite."""
    from workflows.schedule_store import ScheduleStore

    store = ScheduleStore(existing_workspace(workspace).root)
    if not store.path.exists():
        raise InputError(f"there is no schedule {name!r}: see 'recap schedule list'")
    store.remove(name, _now())
    print(f"{name}: removed")


app.command("list")(list_schedules)
app.command()(tick)
app.command("run-now")(run_now)
app.command()(history)
app.command("test-notify")(test_notify)


def _check(schedule: Schedule) -> None:
    """What only this machine can tell: that ``recap improve`` takes the options, that a program is there."""
    from workflows.cli import load_command
    from workflows.notifications import require_command

    own = {"--workspace", "--help", "-h"}
    for word in schedule.options:
        if word.partition("=")[0] in own:
            raise InputError(f"{word!r} cannot be an option of a schedule: it has its own workspace")
    try:
        load_command("improve").make_context("recap improve", list(schedule.options))
    except _UsageError as error:  # whatever is wrong with the options
        said = error.format_message()
        raise InputError(f"'recap improve' does not take {shlex.join(schedule.options)!r}: {said}") from None
    require_command(schedule.notify_command)


def _show(schedule: Schedule, database: Path) -> None:
    from workflows.schedule_outside import writable_by_others
    from workflows.schedule_times import load_zone

    due = schedule.recurrence.next_after(_now()).astimezone(load_zone(schedule.time_zone))
    print(f"{schedule.name}: {schedule.command}")
    print(f"  at {schedule.cron} in {schedule.time_zone}; next {due:%Y-%m-%d %H:%M %Z}")
    print(f"  if {schedule.when or 'it is time'}; missed times: {schedule.missed}")
    print(f"  tells {schedule.target.words() or 'nobody'}")
    if schedule.notify_command and (path := writable_by_others(database)) is not None:
        print(f"  but no command is run while others can write {path}: 'chmod go-w' it, and own it")


def _now() -> datetime:
    return datetime.now(UTC)
