"""The files of a conditioned view: videos by hard link, tables and metadata written anew.

Works on LeRobot's files as they are documented and as its own classes wrote them, without importing
LeRobot, which would take longer than all the rest.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset_folder import BUILD_RECORD, check_column_names, feature, link_or_copy, table_writer
from pipeline.errors import Failure
from pipeline.lerobot_statistics import segment_statistics, statistics

if TYPE_CHECKING:
    from pipeline.conditioned_view import Conditioning

_INFO: Final = "meta/info.json"
_STATISTICS: Final = "meta/stats.json"
_TASKS: Final = "meta/tasks.parquet"
_TASK_INDEX: Final = "task_index"
_REWRITTEN: Final = ("data/", "meta/episodes/", BUILD_RECORD, _INFO, _STATISTICS, _TASKS)
# How the `datasets` library notes a column's type in a table's schema.
_NOTE: Final = b"huggingface"


def write_view(base: Path, out: Path, conditioning: Conditioning) -> None:
    """Fills the empty folder ``out`` with a view of the dataset ``base``.

    Raises ``InputError`` for a new column that ``base`` has already or that LeRobot cannot take.
    """
    info = json.loads((base / _INFO).read_text())
    check_column_names(conditioning.columns, info["features"])
    for name in _files(base):
        if name.startswith("videos/"):
            link_or_copy(base / name, out / name)
        elif not name.startswith(_REWRITTEN):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, out / name)
    _write_tables(base, out, conditioning)
    _write_episodes(base, out, conditioning)
    _write_tasks(out, conditioning.prompts)
    info["features"] |= {name: feature("float32", [name]) for name in conditioning.columns}
    info["total_tasks"] = len(conditioning.prompts)
    _write_json(out / _INFO, info)
    known = json.loads((base / _STATISTICS).read_text())
    known |= {
        name: {key: found.tolist() for key, found in statistics(values).items()}
        for name, values in _new_columns(conditioning).items()
    }
    _write_json(out / _STATISTICS, dict(sorted(known.items())))


def verify_view(base: Path, out: Path, conditioning: Conditioning) -> None:
    """Reads back what was written. Raises ``Failure`` for anything that is not as it should be."""
    found = [pq.read_table(path, columns=[_TASK_INDEX, "index"]) for path in _tables(out)]
    numbers = np.concatenate([table[_TASK_INDEX].to_numpy() for table in found])
    places = np.concatenate([table["index"].to_numpy() for table in found])
    if not np.array_equal(places, np.arange(conditioning.lengths.sum())):
        raise Failure("the frames in the view are not those of its base")
    if not np.array_equal(numbers, conditioning.task_index):
        raise Failure("the prompts in the view are not those that were written")
    written = set(_files(out))
    for name in _files(base):
        video = name.startswith("videos/")
        if name not in written or (video and (out / name).stat().st_size != (base / name).stat().st_size):
            raise Failure(f"the view lacks {name}")


def _write_tables(base: Path, out: Path, conditioning: Conditioning) -> None:
    """The frames' tables, several files at once; memory does not grow with their number."""
    paths = _tables(base)
    counts = [pq.read_metadata(path).num_rows for path in paths]
    starts = np.cumsum([0, *counts]).tolist()
    if starts[-1] != conditioning.lengths.sum():
        raise Failure(f"{base} has {starts[-1]} frames in its tables, expected {conditioning.lengths.sum()}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        targets = [out / path.relative_to(base) for path in paths]
        list(pool.map(partial(_write_table, conditioning=conditioning), paths, targets, starts))


def _write_table(source: Path, target: Path, start: int, conditioning: Conditioning) -> None:
    """One file, an episode at a time; its first frame is ``start``, counted from the dataset's first."""
    file = pq.ParquetFile(source)
    schema = _table_schema(file.schema_arrow, conditioning)
    with table_writer(target, schema) as writer:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, use_threads=False)
            stop = start + len(rows)
            new = {name: values[start:stop] for name, values in _new_columns(conditioning).items()}
            columns = [pa.array(new[n]) if n in new else rows[n] for n in schema.names]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            start = stop


def _table_schema(schema: pa.Schema, conditioning: Conditioning) -> pa.Schema:
    metadata = dict(schema.metadata or {})
    if _NOTE in metadata:
        note = json.loads(metadata[_NOTE])
        for name in conditioning.columns:
            note["info"]["features"][name] = {"dtype": "float32", "_type": "Value"}
        metadata[_NOTE] = json.dumps(note).encode()
    for name in conditioning.columns:
        schema = schema.append(pa.field(name, pa.float32()))
    return schema.with_metadata(metadata)


def _write_episodes(base: Path, out: Path, conditioning: Conditioning) -> None:
    """The episodes' table with the view's tasks, and the statistics of its new columns, of each."""
    lengths = conditioning.lengths
    found = {
        f"stats/{name}/{key}": values
        for name, column in _new_columns(conditioning).items()
        for key, values in segment_statistics(column, lengths).items()
    }
    tasks = _tasks_of_episodes(conditioning)
    start = 0
    for path in sorted((base / "meta/episodes").glob("*/*.parquet")):
        table = pq.read_table(path)
        rows = slice(start, start + len(table))
        start = rows.stop
        table = _with_column(table, "tasks", pa.array(tasks[rows], pa.list_(pa.string())))
        for name, values in found.items():
            offsets = np.arange(len(table) + 1, dtype=np.int32)
            lists = pa.ListArray.from_arrays(offsets, pa.array(values[rows].ravel()))
            table = _with_column(table, name, lists)
        target = out / path.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="snappy", use_dictionary=True)


def _tasks_of_episodes(conditioning: Conditioning) -> list[list[str]]:
    """The prompts that occur in each episode, sorted."""
    count = len(conditioning.prompts)
    episode = np.repeat(np.arange(len(conditioning.lengths)), conditioning.lengths)
    tasks: list[list[str]] = [[] for _ in conditioning.lengths]
    for pair in np.unique(episode * count + conditioning.task_index).tolist():
        tasks[pair // count].append(conditioning.prompts[pair % count])
    return tasks


def _write_tasks(out: Path, prompts: list[str]) -> None:
    import pandas as pd

    pd.DataFrame({_TASK_INDEX: range(len(prompts))}, index=pd.Index(prompts, name="task")).to_parquet(
        out / _TASKS
    )


def _new_columns(conditioning: Conditioning) -> dict[str, np.ndarray]:
    return {_TASK_INDEX: conditioning.task_index, **conditioning.columns}


def _with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False))


def _files(folder: Path) -> list[str]:
    """Every file in the folder by its relative name, sorted."""
    start = len(str(folder)) + 1
    return sorted(f"{parent}/{name}"[start:] for parent, _, names in os.walk(str(folder)) for name in names)


def _tables(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("*/*.parquet"))
