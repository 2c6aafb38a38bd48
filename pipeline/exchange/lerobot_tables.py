"""Tables of LeRobotDatasets, parquet and JSON lines, read so that damage is an ``InputError`` of one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError, one_line
from pipeline.exchange.foreign_episode import check_size


def array(column: Any, length: int, name: str) -> np.ndarray | None:
    """A column of numbers, or of lists of as many numbers in each row; else ``None``."""
    import pyarrow as pa

    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    shape = [length]
    while True:
        kind = values.type
        if isinstance(kind, pa.BaseExtensionType):
            values = values.storage
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            rows = len(values)
            values = values.flatten()
            if not rows or len(values) % rows:
                raise InputError(f"column {name!r} has rows of different lengths: it is damaged")
            shape.append(len(values) // rows)
        else:
            break
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    numbers = np.array(values.to_numpy(zero_copy_only=False))
    check_size(name, tuple(shape), numbers.dtype)
    if len(shape) > 1 and shape[1:] == [1]:
        shape = shape[:1]
    return numbers.reshape(shape)


def read_table(path: Path) -> Any:
    """A whole parquet file. Raises ``InputError`` if it cannot be read."""
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, partitioning=None)
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise InputError(f"{path} is damaged: {one_line(error, None)}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ``InputError`` if it is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {one_line(error, None)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a JSON object")
    return value


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """JSON objects, one a line. Raises ``InputError`` if one is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(text) for text in lines if text.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {one_line(error, None)}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is damaged: a line is no JSON object")
    yield from rows
