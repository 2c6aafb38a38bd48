"""``recap label import``: labels that were made elsewhere, from CSV or Parquet."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import InputError
from pipeline.label_types import (
    LabelEvent,
    Mark,
    NewLabel,
    read_marks,
    require_name,
    require_outcome,
    require_quality,
    require_text,
)
from pipeline.labels import LabelStore
from pipeline.site_config import load_site_config
from workflows.commands.label_store import opened_store
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace

_NEEDED = ("episode_id", "outcome")
_NAMED = 20  # bad lines that are printed at most


@dataclass(frozen=True)
class Line:
    """One row of the file: where it is (``line 3``), and what it says, or why that cannot be taken."""

    where: str
    label: NewLabel | None
    fault: str = ""
    is_open: bool = False
    """Whether it is of an episode that nobody had labelled, as frozen labels name those too."""


def import_labels(
    file: Annotated[Path, typer.Argument(help="A .csv or .parquet file of episode_id and outcome.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    annotator: Annotated[
        str | None,
        typer.Option(
            help="Who said so, where no column 'annotator' does; default: that of [defaults] in recap.toml."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Import the good lines although others are bad.")
    ] = False,
) -> None:
    """Imports labels made elsewhere; a second time changes nothing. Reads FILE, appends to labels.sqlite.

    Columns: episode_id, outcome; and where they are there: annotator, note, quality, marks, as 'recap label
    export' writes them. Other columns are ignored, and so are rows without outcome and annotator. Nothing is
    imported if any line is bad.
    """
    found = existing_workspace(workspace)
    if annotator is None:
        annotator = load_site_config(found.config_path).defaults.annotator
    lines = list(_lines(file, annotator))
    with opened_store(found) as store:
        lengths = {entry.id: entry.length for entry in found.list_episodes()}
        lines = _judged(lines, store, lengths)
        new = [line.label for line in lines if line.label is not None and not line.fault]
        bad = [line for line in lines if line.fault and line.label is None and not line.is_open]
        unlabelled = sum(line.is_open for line in lines)
        for line in bad[:_NAMED]:
            print(f"{file}, {line.where}: {line.fault}")
        if len(bad) > _NAMED:
            print(f"and {len(bad) - _NAMED} more")
        if bad and not partial:
            raise InputError(
                f"nothing imported: {len(bad)} of {len(lines)} lines of {file} are bad, see above; "
                "--partial imports the others"
            )
        replaced = sum(store.state(label.episode_id) != "unlabelled" for label in new)
        if new and not dry_run:
            store.set_all(new)
    verb = "would be imported" if dry_run else "imported"
    there = len(lines) - len(new) - len(bad) - unlabelled
    if unlabelled:
        print(f"{unlabelled} unlabelled: nothing to import")
    print(f"{len(new)} labels {verb} ({replaced} replace others), {there} were there, {len(bad)} bad lines")


def _judged(lines: list[Line], store: LabelStore, lengths: Mapping[str, int]) -> list[Line]:
    """The lines with what the workspace says against them; ``fault`` beside a label: it is there already."""
    states = store.states()
    history: dict[str, list[LabelEvent]] = {}
    for event in store.events():
        history.setdefault(event.episode_id, []).append(event)
    times = Counter(line.label.episode_id for line in lines if line.label is not None)
    judged = []
    for line in lines:
        label = line.label
        if label is None:
            judged.append(line)
            continue
        state = states.get(label.episode_id)
        last = max((mark.end_frame for mark in label.marks), default=0)
        fault = ""
        if state is None:
            fault = f"there is no episode {label.episode_id!r} in the workspace"
        elif times[label.episode_id] > 1:
            fault = f"episode {label.episode_id!r} is named {times[label.episode_id]} times"
        elif any(_is(event, label) for event in history.get(label.episode_id, ())):
            judged.append(Line(line.where, label, "there already"))
            continue
        elif state in {"disputed", "adjudicated", "gold"}:
            fault = f"{label.episode_id} is {state}: only a reviewer changes that"
        elif last > lengths.get(label.episode_id, last):
            fault = f"a mark lies beyond the {lengths[label.episode_id]} frames of {label.episode_id}"
        judged.append(Line(line.where, None if fault else label, fault))
    return judged


def _is(event: LabelEvent, label: NewLabel) -> bool:
    said = (event.outcome, event.annotator, event.note, event.quality, event.marks)
    return event.undoes is None and said == (
        label.outcome,
        label.annotator,
        label.note,
        label.quality,
        label.marks,
    )


def _lines(file: Path, annotator: str | None) -> Iterator[Line]:
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows}
    if file.suffix not in readers:
        raise InputError(f"cannot import {file}: its name must end in .csv or .parquet")
    for where, row in readers[file.suffix](file):
        if _is_open(row):
            yield Line(where, None, is_open=True)
            continue
        try:
            yield Line(where, _label(row, annotator))
        except InputError as error:
            yield Line(where, None, str(error))


def _label(row: Mapping[str, Any], annotator: str | None) -> NewLabel:
    texts = {
        name: _text(name, row.get(name)) for name in ("episode_id", "outcome", "annotator", "note", "quality")
    }
    name = texts["annotator"] or annotator or ""
    if not name.strip():
        raise InputError("it does not say who labelled: fill the column 'annotator', or give --annotator")
    require_name(name)
    require_outcome(texts["outcome"])
    require_quality(texts["quality"] or None)
    require_text("a note", texts["note"])
    marks = row.get("marks")
    read = read_marks(marks) if marks is None or isinstance(marks, str) else _marks(marks)
    ordered = tuple(sorted(read, key=lambda mark: (mark.start_frame, mark.end_frame, mark.kind, mark.text)))
    return NewLabel(
        texts["episode_id"], texts["outcome"], name, texts["note"], texts["quality"] or None, ordered
    )


def _is_open(row: Mapping[str, Any]) -> bool:
    """Whether a row names an episode, and says neither an outcome nor who gave one."""
    return bool(row.get("episode_id")) and not any(row.get(name) for name in ("outcome", "annotator"))


def _text(name: str, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} must be text, not {value!r}")
    return value or ""


def _marks(values: Any) -> tuple[Mark, ...]:
    try:
        return tuple(Mark(**value) for value in values)
    except TypeError as error:
        raise InputError(f"marks have kind, start_frame, end_frame and text: {error}") from error


def _csv_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            _require_columns(file, reader.fieldnames or ())
            before = reader.line_num
            for row in reader:
                yield f"line {before + 1}", {name: row[name] for name in row if isinstance(name, str)}
                before = reader.line_num
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {file}: {error}") from error


def _parquet_rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    _require_columns(file, table.column_names)
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row


def _require_columns(file: Path, names: Any) -> None:
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise InputError(
            f"{file} lacks the column {missing[0]!r}: labels have episode_id, outcome and annotator, see "
            "'recap label export'"
        )
