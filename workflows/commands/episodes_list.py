"""``recap episodes list``: the recorded episodes as a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from pipeline.episode_index import IndexedEpisode
from pipeline.errors import InputError
from pipeline.labels import LabelStore
from pipeline.workspace import EpisodeEntry, Workspace
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table


class Listed(StrEnum):
    """Which episodes to list."""

    SUCCESS = "success"
    FAILURE = "failure"
    EXCLUDE = "exclude"
    DISPUTED = "disputed"
    UNLABELLED = "unlabelled"


class Driver(StrEnum):
    """Who drove: a person throughout, a policy, or a policy that a person corrected."""

    PERSON = "person"
    POLICY = "policy"
    CORRECTED = "corrected"


class Format(StrEnum):
    """How to print the list."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def list_episodes(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    task: Annotated[str | None, typer.Option(help="Only the episodes of this task.")] = None,
    outcome: Annotated[
        Listed | None, typer.Option(help="Only those with this outcome.", case_sensitive=False)
    ] = None,
    driver: Annotated[
        Driver | None,
        typer.Option(help="Only those that a person drove, a policy, or a policy that a person corrected."),
    ] = None,
    operator: Annotated[str | None, typer.Option(help="Only those of this operator.")] = None,
    robot: Annotated[str | None, typer.Option(help="Only those of this robot.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only those whose policy's name contains this.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only those from this day (2025-01-31) or time on.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only those up to this day, its evening included.")
    ] = None,
    min_seconds: Annotated[float, typer.Option(help="Only those that last at least so long.", min=0)] = 0.0,
    limit: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    newest: Annotated[bool, typer.Option("--newest/--oldest", help="Which come first.")] = False,
    format: Annotated[Format, typer.Option(help="How to print them.")] = Format.TABLE,
) -> None:
    """One line per episode, oldest first. Reads episodes/ and labels.sqlite, writes only to cache/."""
    first, last = _time(since, False), _time(until, True)
    found = existing_workspace(workspace)
    outcomes = current_outcomes(found)
    equal = {"task": task, "outcome": outcome, "driver": driver, "operator": operator, "robot": robot}
    items = found.index()
    everything = [_row(item, outcomes) for item in items]
    rows = [
        row
        for item, row in zip(items, everything, strict=True)
        if all(wish in (None, row[name]) for name, wish in equal.items())
        and (policy is None or policy in (row["policy"] or ""))
        and ((first is None and last is None) or _within(row["recorded"], first, last))
        and _seconds(item.entry) >= min_seconds
    ]
    if newest:
        rows.reverse()
    _print(rows[:limit], format)
    if format is Format.TABLE:
        given = [name for name, wish in {**equal, "policy": policy}.items() if wish is not None]
        given += ["recorded"] * (since is not None or until is not None)
        for line in _notes(rows, everything, [*given, *["seconds"] * (min_seconds > 0)]):
            print(line)


def current_outcomes(workspace: Workspace) -> dict[str, str]:
    """The outcomes that hold, ``disputed`` where annotators differ; unlabelled episodes are left out."""
    if not workspace.labels_path.exists():
        return {}
    with LabelStore(workspace.labels_path) as store:
        return {name: label.outcome for name, label in store.current().items()} | {
            name: Listed.DISPUTED.value for name, state in store.states().items() if state == Listed.DISPUTED
        }


def outcome_of(entry: EpisodeEntry, outcomes: dict[str, str]) -> str:
    """An episode's outcome as text, ``unlabelled`` where nobody has labelled it."""
    return outcomes.get(entry.id, Listed.UNLABELLED.value)


def _seconds(entry: EpisodeEntry) -> float:
    # Of a damaged file the rate may be anything.
    return entry.length / entry.info.rate_hz if entry.info.rate_hz > 0 else 0.0


def _row(item: IndexedEpisode, outcomes: dict[str, str]) -> dict[str, Any]:
    entry, info = item.entry, item.entry.info
    return {
        "episode": entry.id,
        "task": info.task,
        "driver": item.driver,
        "outcome": outcome_of(entry, outcomes),
        "frames": entry.length,
        "seconds": round(_seconds(entry), 1),
        "recorded": info.created,
        "operator": info.operator,
        "robot": info.robot,
        "policy": info.policy_checkpoint,
        "mark": info.operator_mark,
        "truncated": info.truncated,
        "missing": " ".join(info.missing),
        "fingerprint": entry.fingerprint,
        "file": str(entry.path),
    }


_COLUMNS = ("episode", "task", "driver", "outcome", "mark", "frames", "seconds", "recorded", "operator")
_PLURALS = {
    "task": "tasks",
    "outcome": "outcomes",
    "driver": "drivers",
    "operator": "operators",
    "robot": "robots",
    "policy": "policies",
}
_NAMED = 8  # values that a note names at most


def _notes(rows: list[dict[str, Any]], everything: list[dict[str, Any]], given: list[str]) -> Iterator[str]:
    """What a person may want to know besides: ids that occur twice, and what there is if nothing matched.

    ``given`` are the columns that were filtered by.
    """
    for episode_id, count in Counter(row["episode"] for row in rows).items():
        if count > 1:
            yield f"note: {count} files share an id, {episode_id!r}: see 'recap episodes check'"
    if rows or not everything or not given:
        return
    said = []
    for name in given:
        values = sorted({row[name] for row in everything if row[name] is not None})
        if name == "recorded":
            said.append(f"recordings of {_range(values[0][:10], values[-1][:10])}")
        elif name == "seconds":
            said.append(f"{_range(f'{values[0]:g}', f'{values[-1]:g}')} seconds")
        else:
            more = f" and {len(values) - _NAMED} more" if len(values) > _NAMED else ""
            listed = ", ".join(repr(str(value)) for value in values[:_NAMED]) or "none"
            said.append(f"{_PLURALS[name]} {listed}{more}")
    yield f"to choose from: {'; '.join(said)}"


def _range(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _print(rows: list[dict[str, Any]], format: Format) -> None:
    if format is Format.JSON:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    elif format is Format.CSV:
        names = list(rows[0]) if rows else list(_COLUMNS)
        writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        if rows:
            print(table(_COLUMNS, [[_cell(row, name) for name in _COLUMNS] for row in rows]))
        print(f"{len(rows)} episode{'' if len(rows) == 1 else 's'}")


def _cell(row: dict[str, Any], name: str) -> Any:
    """A column as the table has it, where its room is short and ``truncated`` has no column of its own."""
    if name == "recorded":
        return row[name][:16]
    if name == "mark":
        said = [row[name]] if row[name] else []
        return ", ".join([*said, "cut short"] if row["truncated"] else said) or "-"
    return row[name]


def _time(text: str | None, end_of_day: bool) -> datetime | None:
    """A day or time as a person types it; without a zone it is UTC, as the recordings are."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is no day or time: write 2025-01-31, or 2025-01-31T14:00") from None
    if end_of_day and len(text) == len("2025-01-31"):
        time += timedelta(days=1, microseconds=-1)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _within(created: str, first: datetime | None, last: datetime | None) -> bool:
    try:
        time = datetime.fromisoformat(created)
    except ValueError:
        return False
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (first is None or time >= first) and (last is None or time <= last)
