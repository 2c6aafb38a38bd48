"""``recap schedule history``: what became of the runs; many refusals in a row are one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import InputError
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table

if TYPE_CHECKING:
    from workflows.schedule import Run
    from workflows.schedule_reading import ScheduleReader
    from workflows.schedule_state import SchedulesState

_REASON_LENGTH = 100


@dataclass
class HistoryLine:
    """One line of the history: a run, or several of one schedule in a row that came to nothing alike."""

    runs: list[Run]

    @property
    def last(self) -> Run:
        """The newest of them."""
        return self.runs[-1]


def folded(runs: Sequence[Run]) -> list[HistoryLine]:
    """The runs (by logical time) as lines, each where its oldest run belongs.

    Refused ones of one schedule are one line until another run of that schedule comes between, and so are
    those whose condition did not hold.
    """
    from workflows.schedule import Kind

    lines: list[HistoryLine] = []
    newest: dict[str, HistoryLine] = {}
    for run in runs:
        line = newest.get(run.schedule)
        alike = line is not None and line.last.final is not None and run.final is not None
        if (
            line is not None
            and alike
            and run.outcome == line.last.outcome
            and run.outcome in {Kind.REFUSED, Kind.NOT_MET}
        ):
            line.runs.append(run)
            continue
        newest[run.schedule] = HistoryLine([run])
        lines.append(newest[run.schedule])
    return lines


def history(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Only of this schedule; default: of all.")
    ] = None,
    limit: Annotated[
        int, typer.Option(help="The newest so many lines; with --json so many runs.", min=1)
    ] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="All that is noted, secrets apart, as JSON; nothing is folded.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """The newest runs and what became of them, oldest first. Reads schedules.sqlite only.

    Runs of a schedule that were refused one after the other are one line with their number, and so are
    those whose condition did not hold.
    """
    from workflows.schedule_reading import ScheduleReader
    from workflows.schedule_state import schedules_state

    found = existing_workspace(workspace)
    reader = ScheduleReader(found.root)
    if name is not None and not reader.knows(name):
        raise InputError(f"there is no schedule {name!r}, and there was none: see 'recap schedule list'")
    if as_json:
        print(
            json.dumps([_document(run) for run in reader.history(name, limit)], indent=1, ensure_ascii=False)
        )
        return
    lines = _newest_lines(reader, name, limit)
    state = schedules_state(found)
    if lines:
        print(table(_COLUMNS, [_row(line, state) for line in lines]))
    number = sum(len(line.runs) for line in lines)
    print(f"{number} run{'' if number == 1 else 's'}")


_COLUMNS = ("due (UTC)", "schedule", "outcome", "attempts", "reason")


def _newest_lines(reader: ScheduleReader, name: str | None, limit: int) -> list[HistoryLine]:
    """The newest lines; looks back as far as they reach, and not through years."""
    looked_at = 4 * limit
    while True:
        runs = reader.history(name, looked_at)
        lines = folded(runs)
        if len(lines) > limit or len(runs) < looked_at:
            return lines[-limit:]
        looked_at *= 4


def _row(line: HistoryLine, state: SchedulesState) -> list[object]:
    run, number = line.last, len(line.runs)
    due = f"{line.runs[0].logical_time:%Y-%m-%d %H:%M}"
    if number > 1:
        same_day = line.runs[0].logical_time.date() == run.logical_time.date()
        due += f" to {run.logical_time:{'%H:%M' if same_day else '%m-%d %H:%M'}}"
    outcome = state.outcome(run) + (" (by hand)" if run.by_hand else "")
    return [
        due,
        run.schedule,
        outcome if number == 1 else f"{number} x {outcome}",
        run.attempts,
        _reason(run),
    ]


def _document(run: Run) -> dict[str, Any]:
    return {
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


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    from workflows.schedule import Schedule

    return {
        k: Schedule.shown(value) if k == "schedule" and isinstance(value, dict) else value
        for k, value in document.items()
    }


def _reason(run: Run) -> str:
    """Why, and who could not be told of it."""
    from workflows.schedule_state import untold

    event = run.final or (run.events[-1] if run.events else None)
    reason = " ".join(str(event.document.get("reason", "")).split()) if event is not None else ""
    if len(reason) > _REASON_LENGTH:
        reason = f"{reason[: _REASON_LENGTH - 1]}…"
    missed = untold(run)
    return f"{reason} [not told: {missed}]" if missed else reason
