"""``reports/iterations.json``: written by the loop, read by whoever shows its history.

One JSON object with ``version`` and the fields of :class:`pipeline.iteration_records.IterationsDocument` by
their names: ``robot``, ``champions`` (every promotion and rollback, oldest first), ``iterations``,
``refused`` (turns that ended at the gate on values: their number to their page), ``refused_at`` (when, in
UTC), ``problems`` (sentences).

The file is replaced in one rename, so that a reader never sees half of it. A new field gets a default that
means "not said"; fields that a reader does not know are passed over; :data:`VERSION` is raised where a
field's meaning changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.durable_files import write_file
from pipeline.errors import InputError
from pipeline.iteration_records import IterationRecord, IterationsDocument

VERSION = 1
FILE_NAME = "iterations.json"


def iterations_path(reports: Path) -> Path:
    """Where the file is, in a workspace's ``reports/``."""
    return reports / FILE_NAME


def to_json(document: IterationsDocument) -> bytes:
    """The file's bytes; equal documents give equal ones. Raises ``ValueError`` for a number that is not."""
    return json.dumps({"version": VERSION, **asdict(document)}, indent=1, allow_nan=False).encode()


def write_iterations(document: IterationsDocument, reports: Path) -> Path:
    """Writes the file in one rename; returns it."""
    path = iterations_path(reports)
    write_file(path, to_json(document))
    return path


def read_iterations(reports: Path) -> IterationsDocument | None:
    """The file below ``reports``; ``None`` where there is none.

    An iteration that is damaged by itself comes with its number and the problem alone. Raises ``InputError``
    where the file as a whole is damaged, or of a later version.
    """
    path = iterations_path(reports)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return _document(json.loads(text))
    except ValueError as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{path} is damaged ({why}): 'recap report --all' writes it anew") from error


def _document(found: Any) -> IterationsDocument:
    if not isinstance(found, dict) or not isinstance(found.get("version"), int):
        raise ValueError("it does not say its version")
    if found["version"] > VERSION:
        raise ValueError(f"it has version {found['version']}, this software knows up to {VERSION}")
    given = found.get("iterations")
    if not isinstance(given, list):
        raise ValueError("it has no list of iterations")
    whole: IterationsDocument = _adapter(IterationsDocument).validate_python({**found, "iterations": ()})
    return replace(whole, iterations=tuple(_iteration(one, place) for place, one in enumerate(given, 1)))


def _iteration(found: Any, place: int) -> IterationRecord:
    try:
        record: IterationRecord = _adapter(IterationRecord).validate_python(found)
        return record
    except ValueError as error:
        n = found.get("n") if isinstance(found, Mapping) else None
        problem = f"its figures are damaged ({_first_fault(error)}): 'recap report --all' reads them anew"
        return IterationRecord(n if isinstance(n, int) and n > 0 else place, problems=(problem,))


def _first_fault(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    where: Sequence[Any] = first["loc"]
    return f"{'.'.join(str(part) for part in where)}: {first['msg']}"


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Checks plain JSON against a dataclass; made once, since that takes longer than to use it."""
    return TypeAdapter(kind)
