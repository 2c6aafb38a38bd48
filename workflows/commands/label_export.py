"""``recap label export``: labels as CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.durable_files import write_file
from pipeline.errors import InputError
from pipeline.label_state import standing
from pipeline.label_types import Label, LabelEvent, Mark, marks_text
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from workflows.commands.label_store import opened_store
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace
from workflows.commands.output_places import require_file_place, require_place


def export(
    out: Annotated[Path, typer.Option(help="The file to write: .csv or .parquet.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    history: Annotated[
        bool,
        typer.Option(
            "--history", help="Everything that was ever said, also what was replaced or taken back."
        ),
    ] = False,
) -> None:
    """Writes the labels that hold, one row per episode. Reads labels.sqlite and episodes/, writes OUT."""
    found = existing_workspace(workspace)
    writers = {".csv": _csv, ".parquet": _parquet}
    if out.suffix not in writers:
        raise InputError(f"cannot export to {out}: its name must end in .csv or .parquet")
    if out.is_dir():
        raise InputError(f"cannot export to {out}: it is a folder")
    require_place(out, found)
    require_file_place(out)
    with opened_store(found) as store, store.moment():
        rows = _events(store) if history else _labels(found, store)
    kind: type = LabelEvent if history else Label
    columns = ["task", *(column.name for column in fields(kind)), *(["undone", "holds"] if history else [])]
    try:
        write_file(out, writers[out.suffix](columns, rows))
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from error
    print(f"{len(rows)} {'event' if history else 'label'}{'' if len(rows) == 1 else 's'} in {out}")


def _labels(workspace: Workspace, store: LabelStore) -> list[dict[str, Any]]:
    labels = store.current()
    return [
        {"task": entry.info.task, **asdict(labels[entry.id])}
        for entry in workspace.list_episodes()
        if entry.id in labels
    ]


def _events(store: LabelStore) -> list[dict[str, Any]]:
    events, tasks = store.events(), store.tasks()
    holding = {label.event_id for label in store.current().values()}
    stand = {event.event_id for event in standing(events)}
    return [
        {
            "task": tasks[event.episode_id],
            **asdict(event),
            "undone": event.undoes is None and event.event_id not in stand,
            "holds": event.event_id in holding,
        }
        for event in events
    ]


def _csv(columns: list[str], rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for row in rows:
        flags: dict[str, Any] = {name: str(row[name]).lower() for name in ("undone", "holds") if name in row}
        writer.writerow({**row, "marks": _marks_text(row["marks"]), **flags})
    return text.getvalue().encode()


def _marks_text(marks: Sequence[dict[str, Any]]) -> str:
    return marks_text(Mark(**mark) for mark in marks) if marks else ""


def _parquet(columns: list[str], rows: list[dict[str, Any]]) -> bytes:
    # A second to import, and only this one command needs it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    mark = pa.struct(
        [
            ("kind", pa.string()),
            ("start_frame", pa.int64()),
            ("end_frame", pa.int64()),
            ("text", pa.string()),
        ]
    )
    types: dict[str, Any] = {name: pa.int64() for name in ("event_id", "supersedes", "undoes")}
    types |= {"undone": pa.bool_(), "holds": pa.bool_(), "marks": pa.list_(mark)}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    return bytes(sink.getvalue())
