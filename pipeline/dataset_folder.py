"""What a dataset's folder holds besides LeRobot's own files, and how its files are stored.

Nothing here needs LeRobot, which takes seconds to import.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset_selection import is_written
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.lerobot_language import LANGUAGE_COLUMNS

EPISODES_FILE: Final = "meta/recap_episodes.parquet"
BUILD_RECORD: Final = "meta/recap.json"

# What LeRobot adds to every dataset, and what it takes for its annotations.
_LEROBOT_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index", *LANGUAGE_COLUMNS)
_TEXT = pa.string()
_FACTS = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("id", _TEXT),
        ("task", _TEXT),
        ("operator", _TEXT),
        ("robot", _TEXT),
        ("rate_hz", pa.float64()),
        ("cameras", pa.list_(_TEXT)),
        ("created", _TEXT),
        ("software_version", _TEXT),
        ("policy_checkpoint", _TEXT),
        ("operator_mark", _TEXT),
        ("truncated", pa.bool_()),
        ("schema_version", pa.int64()),
        ("extra", _TEXT),
        ("missing", pa.list_(_TEXT)),
        ("length", pa.int64()),
        ("fingerprint", _TEXT),
        ("dropped", pa.int64()),
        ("outcome", _TEXT),
    ]
)


def write_episode_facts(
    root: Path,
    episodes: Sequence[EpisodeEntry],
    dropped: Sequence[int],
    outcomes: Mapping[str, str | None],
) -> None:
    """Writes what is known of each episode as a whole; the columns are in :mod:`pipeline.lerobot_dataset`."""
    rows = [
        {
            **asdict(entry.info),
            "episode_index": index,
            "extra": json.dumps(entry.info.extra, sort_keys=True),
            "length": entry.length,
            "fingerprint": entry.fingerprint,
            "dropped": lost,
            "outcome": outcomes.get(entry.id),
        }
        for index, (entry, lost) in enumerate(zip(episodes, dropped, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=_FACTS), root / EPISODES_FILE)


def read_episode_facts(root: Path) -> dict[str, list[Any]]:
    """What :func:`write_episode_facts` wrote, by column. Raises ``InputError`` where there is none."""
    try:
        facts: dict[str, list[Any]] = pq.read_table(root / EPISODES_FILE, schema=_FACTS).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{root} has no readable {EPISODES_FILE}: {error}") from error
    return facts


def write_record(root: Path, record: Mapping[str, Any]) -> None:
    """Writes what a dataset was built from; datasets of equal records have equal content."""
    (root / BUILD_RECORD).write_text(json.dumps(record, indent=1))


def read_record(root: Path) -> dict[str, Any] | None:
    """What :func:`write_record` wrote, or ``None`` where there is nothing of the kind."""
    try:
        record = json.loads((root / BUILD_RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def is_built(out: Path, record: Mapping[str, Any], episodes: int) -> bool:
    """Whether ``out`` holds the dataset of that record, of so many episodes.

    Raises ``InputError`` if it holds anything else.
    """
    return is_written(out, record, read_record(out), episodes=episodes, held=_held)


def _held(root: Path) -> int:
    return len(read_episode_facts(root)["id"])


def feature(dtype: str, names: Sequence[str]) -> dict[str, Any]:
    """A column of numbers in LeRobot's words; ``names`` are its components."""
    return {"dtype": dtype, "shape": (len(names),), "names": list(names)}


def check_column_names(columns: Iterable[str], taken: Iterable[str]) -> None:
    """Raises ``InputError`` for a new column that LeRobot cannot take beside the columns ``taken``."""
    for name in columns:
        if name in {*taken, "task", *_LEROBOT_COLUMNS}:
            raise InputError(f"a dataset has a column {name!r} already: choose another name")
        if not name or "/" in name:
            raise InputError(f"a dataset cannot have a column {name!r}: use a name without '/'")


def table_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer for a table of frames; makes the folder.

    Bytes of floats that stand together and differences of integers compress to two thirds of what
    pages of plain values take, and are written sooner than dictionaries.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    encodings = {}
    for field in schema:
        nested = pa.types.is_fixed_size_list(field.type)
        kind = field.type.value_type if nested else field.type
        column = f"{field.name}.list.element" if nested else field.name
        if pa.types.is_floating(kind):
            encodings[column] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(kind):
            encodings[column] = "DELTA_BINARY_PACKED"
    return pq.ParquetWriter(
        path, schema, compression="snappy", use_dictionary=False, column_encoding=encodings
    )


def link_or_copy(source: Path, target: Path) -> None:
    """Makes ``target`` a second name of the file ``source``, or a copy where that cannot be.

    Such as on another file system, or one without hard links. Makes the folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
