"""A dataset of a great many frames for benchmarks, made from a small real one.

The tables and the metadata are really written, with other numbers in every episode; a video of the small
dataset is hard-linked as the video of every so many episodes of the large one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.dataset_folder import EPISODES_FILE, link_or_copy, read_record, table_writer, write_record

EPISODES_PER_CHUNK = 1000


def multiply(small: Path, out: Path, episodes: int) -> Path:
    """Writes ``out`` with ``episodes`` episodes, each like one of the dataset ``small``; returns it."""
    info = json.loads((small / "meta/info.json").read_text())
    table = pq.read_table(small / "data/chunk-000/file-000.parquet")
    first = pq.read_table(small / "meta/episodes/chunk-000/file-000.parquet")
    facts = pq.read_table(small / EPISODES_FILE)
    templates = [table.filter(pc.equal(table["episode_index"], i)) for i in range(len(first))]
    lengths = np.array([len(templates[i % len(templates)]) for i in range(episodes)])
    ends = np.cumsum(lengths)
    _write_tables(out, templates, ends, np.random.default_rng(0))
    chosen = np.arange(episodes) % len(first)
    chunk, file = np.divmod(np.arange(episodes), EPISODES_PER_CHUNK)
    replaced = {
        "episode_index": np.arange(episodes),
        "dataset_from_index": ends - lengths,
        "dataset_to_index": ends,
        "data/chunk_index": chunk,
    }
    cameras = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    for camera in cameras:
        replaced |= {f"videos/{camera}/chunk_index": chunk, f"videos/{camera}/file_index": file}
        for i in range(episodes):
            source = f"videos/{camera}/chunk-000/file-{chosen[i]:03d}.mp4"
            link_or_copy(small / source, out / f"videos/{camera}/chunk-{chunk[i]:03d}/file-{file[i]:03d}.mp4")
    folder = out / "meta/episodes/chunk-000"
    folder.mkdir(parents=True)
    pq.write_table(_with(first.take(chosen), replaced), folder / "file-000.parquet")
    ids = {"episode_index": np.arange(episodes), "id": [f"episode-{i:06d}" for i in range(episodes)]}
    pq.write_table(_with(facts.take(chosen), ids), out / EPISODES_FILE)
    info |= {"total_episodes": episodes, "total_frames": int(ends[-1]), "splits": {"train": f"0:{episodes}"}}
    (out / "meta/info.json").write_text(json.dumps(info, indent=4))
    for name in ("meta/stats.json", "meta/tasks.parquet"):
        (out / name).write_bytes((small / name).read_bytes())
    write_record(out, {**(read_record(small) or {}), "content": f"{episodes} episodes"})
    return out


def _write_tables(out: Path, templates: list[pa.Table], ends: np.ndarray, rng: np.random.Generator) -> None:
    writer: pq.ParquetWriter | None = None
    for i, end in enumerate(ends):
        if i % EPISODES_PER_CHUNK == 0:
            if writer is not None:
                writer.close()
            path = out / f"data/chunk-{i // EPISODES_PER_CHUNK:03d}/file-000.parquet"
            writer = table_writer(path, templates[0].schema)
        rows = templates[i % len(templates)]
        numbers: dict[str, Any] = {
            "episode_index": np.full(len(rows), i),
            "index": np.arange(end - len(rows), end),
        }
        for name in rows.column_names:
            kind = rows.schema.field(name).type
            if pa.types.is_fixed_size_list(kind):
                values = rng.normal(size=(len(rows), kind.list_size)).astype(np.float32)
                numbers[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), kind.list_size)
        assert writer is not None
        writer.write_table(_with(rows, numbers))
    assert writer is not None
    writer.close()


def _with(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """``table`` with other values in some columns, of the same types."""
    for name, values in columns.items():
        place = table.column_names.index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(values, field.type))
    return table
