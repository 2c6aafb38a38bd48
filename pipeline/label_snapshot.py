"""Freezes the labels of a set of episodes into a Parquet file named after its content.

Equal labels of equal episodes give the same file name, in whatever order and at whatever time the
labels were given: no time and no event number is in it. A training run names the snapshot it used.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.durable_files import write_file
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.label_types import Label

if TYPE_CHECKING:  # the store offers this module's functions under its own name
    from pipeline.labels import LabelStore

_DIGEST_KEY = b"kinova_recap.digest"
_NAME_DIGITS = 16


@dataclass(frozen=True)
class SnapshotRow:
    """One episode. ``outcome`` is ``success``, ``failure``, ``exclude`` or ``None`` (nobody labelled it).

    ``length`` is in frames; ``fingerprint`` is the hash of the episode's frames.
    """

    episode_id: str
    task: str
    outcome: str | None
    annotator: str | None
    operator: str
    operator_mark: str | None
    robot: str
    policy_checkpoint: str | None
    created: str
    length: int
    truncated: bool
    fingerprint: str


@dataclass(frozen=True)
class Snapshot:
    """A frozen set of labels; ``digest`` is 64 hexadecimal digits, the file's name has the first 16."""

    path: Path
    digest: str
    rows: tuple[SnapshotRow, ...]


def freeze(store: LabelStore, episodes: Iterable[EpisodeEntry], out_dir: Path) -> Snapshot:
    """Writes ``out_dir/labels-<digest>.parquet`` atomically, one row an episode, sorted by id.

    Raises ``InputError`` if an episode is given twice.
    """
    labels = store.current()
    rows = tuple(sorted((_row(entry, labels) for entry in episodes), key=lambda row: row.episode_id))
    for row, following in pairwise(rows):
        if row.episode_id == following.episode_id:
            raise InputError(f"there are two episodes {row.episode_id!r}: see 'recap episodes check'")
    digest = _digest(rows)
    path = out_dir / f"labels-{digest[:_NAME_DIGITS]}.parquet"
    if not path.exists():
        write_file(path, _parquet(rows, digest))
    return Snapshot(path, digest, rows)


def read_snapshot(path: Path) -> list[SnapshotRow]:
    """The rows of a snapshot. Raises ``InputError`` if it is none or was changed after it was frozen."""
    import pyarrow as pa  # here, since it takes longer to import than all other code that uses labels
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read the label snapshot {path}: {error}") from error
    digest = (table.schema.metadata or {}).get(_DIGEST_KEY, b"").decode()
    try:
        rows = [SnapshotRow(**row) for row in table.to_pylist()]
    except TypeError as error:
        raise InputError(f"{path} is not a label snapshot: {error}") from error
    if _digest(rows) != digest:
        raise InputError(f"{path} is not as it was frozen: its rows do not match their digest")
    return rows


def _parquet(rows: Iterable[SnapshotRow], digest: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"length": pa.int64(), "truncated": pa.bool_()}
    optional = ("outcome", "annotator", "operator_mark", "policy_checkpoint")
    schema = pa.schema(
        [pa.field(f.name, types.get(f.name, pa.string()), f.name in optional) for f in fields(SnapshotRow)],
        metadata={_DIGEST_KEY: digest.encode()},
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), buffer)
    return buffer.getvalue()


def _row(entry: EpisodeEntry, labels: dict[str, Label]) -> SnapshotRow:
    label = labels.get(entry.id)
    return SnapshotRow(
        episode_id=entry.id,
        task=entry.info.task,
        outcome=None if label is None else label.outcome,
        annotator=None if label is None else label.annotator,
        operator=entry.info.operator,
        operator_mark=entry.info.operator_mark,
        robot=entry.info.robot,
        policy_checkpoint=entry.info.policy_checkpoint,
        created=entry.info.created,
        length=entry.length,
        truncated=entry.info.truncated,
        fingerprint=entry.fingerprint,
    )


def _digest(rows: Iterable[SnapshotRow]) -> str:
    """Of the rows themselves, not of the Parquet file, whose bytes change with the library's version."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(json.dumps(asdict(row), sort_keys=True).encode() + b"\n")
    return hasher.hexdigest()
