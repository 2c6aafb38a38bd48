"""Freezes the labels of a set of episodes into a Parquet file named after its content.

Equal labels of equal episodes give the same file name, in whatever order and at whatever time the
labels were given: no time and no event number is in it. A training run names the snapshot it used.

An episode is one row, however many people labelled it. Where several said the same, independently, the row
names them all, has the worst quality that any of them saw, and the marks of the first of them (by name) who
made any. Disputed episodes have no row; the file's metadata counts them.

The rule for a new version n + 1: a column is added with a default that means "not said", :data:`_VERSION` is
raised, ``_ADDED`` names the column, and an older file is read with the default and its digest checked without
the column. Version 2 added ``opinions``, ``quality`` and ``marks``.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.durable_files import write_file
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.label_state import SETTLING
from pipeline.label_types import Label, Mark, Opinion, worst_quality

if TYPE_CHECKING:  # the store offers this module's functions under its own name
    from pipeline.labels import LabelStore

_VERSION = 2
_ADDED = {"opinions": 2, "quality": 2, "marks": 2}
_DIGEST_KEY = b"kinova_recap.digest"
_VERSION_KEY = b"kinova_recap.snapshot_version"
_DISPUTED_KEY = b"kinova_recap.disputed"
_NAME_DIGITS = 16


@dataclass(frozen=True)
class SnapshotRow:
    """One episode. ``outcome`` is ``success``, ``failure``, ``exclude`` or ``None`` (nobody labelled it).

    ``length`` is in frames; ``fingerprint`` is the hash of the episode's frames. ``annotator`` has several
    names, sorted and joined by `` + ``, where ``opinions`` independent people agree; ``opinions`` is 0 where
    nobody labelled it, and 1 also for a reviewer's word. ``quality`` is ``clean``, ``clumsy``, ``unsafe`` or
    not said; ``marks`` are moments and sub-tasks in frames, see :class:`pipeline.label_types.Mark`.
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
    opinions: int = 0
    quality: str | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A frozen set of labels; ``digest`` is 64 hexadecimal digits, the file's name has the first 16.

    ``disputed`` of the episodes have no row, since annotators differ on them.
    """

    path: Path
    digest: str
    rows: tuple[SnapshotRow, ...]
    disputed: int = 0


def freeze(store: LabelStore, episodes: Iterable[EpisodeEntry], out_dir: Path) -> Snapshot:
    """Writes ``out_dir/labels-<digest>.parquet`` atomically, one row an episode, sorted by id.

    Leaves disputed episodes out. Raises ``InputError`` if an episode is given twice.
    """
    with store.moment():
        labels, opinions = store.current(), store.all_opinions()
        in_dispute = {dispute.episode_id for dispute in store.disputed()}
    given = list(episodes)
    rows = tuple(
        sorted(
            (_row(entry, labels, opinions) for entry in given if entry.id not in in_dispute),
            key=lambda row: row.episode_id,
        )
    )
    disputed = len({entry.id for entry in given} & in_dispute)
    for row, following in pairwise(rows):
        if row.episode_id == following.episode_id:
            raise InputError(f"there are two episodes {row.episode_id!r}: see 'recap episodes check'")
    digest = _digest(rows, disputed)
    path = out_dir / f"labels-{digest[:_NAME_DIGITS]}.parquet"
    if not path.exists():
        write_file(path, _parquet(rows, digest, disputed))
    return Snapshot(path, digest, rows, disputed)


def read_snapshot(path: Path) -> list[SnapshotRow]:
    """The rows of a snapshot. Raises ``InputError`` if it is none or was changed after it was frozen."""
    return list(load_snapshot(path).rows)


def load_snapshot(path: Path) -> Snapshot:
    """All of a snapshot. Raises ``InputError`` if it is none or was changed after it was frozen."""
    import pyarrow as pa  # here, since it takes longer to import than all other code that uses labels
    import pyarrow.parquet as pq

    try:
        # Not by read_table, which loads pandas.
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read the label snapshot {path}: {error}") from error
    metadata = table.schema.metadata or {}
    version = _number(metadata, _VERSION_KEY, 1)
    if version > _VERSION:
        raise InputError(f"{path} has version {version}, this software knows up to {_VERSION}: update it")
    disputed = _number(metadata, _DISPUTED_KEY, 0)
    try:
        rows = [_read_row(row) for row in table.to_pylist()]
    except (TypeError, InputError) as error:
        raise InputError(f"{path} is not a label snapshot: {error}") from error
    digest = _digest(rows, disputed, version)
    if digest != metadata.get(_DIGEST_KEY, b"").decode(errors="replace"):
        raise InputError(
            f"{path} is not as it was frozen, its rows do not match their digest: put it back from a copy, "
            "or remove it, and it is frozen anew where the labels still are as they were"
        )
    named = re.fullmatch(r"labels-([0-9a-f]+)", path.stem)
    if named is not None and not digest.startswith(named[1]):
        raise InputError(f"{path} holds other labels than its name says: put it back from a copy")
    return Snapshot(path, digest, tuple(rows), disputed)


def _number(metadata: dict[bytes, bytes], key: bytes, default: int) -> int:
    text = metadata.get(key)
    return int(text) if text is not None and text.isdigit() else default


def _read_row(fields: dict[str, Any]) -> SnapshotRow:
    marks = tuple(Mark(**mark) for mark in fields.pop("marks", None) or ())
    return SnapshotRow(**fields, marks=marks)


def _parquet(rows: Iterable[SnapshotRow], digest: str, disputed: int) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    mark = pa.struct(
        [
            pa.field("kind", pa.string(), False),
            pa.field("start_frame", pa.int64(), False),
            pa.field("end_frame", pa.int64(), False),
            pa.field("text", pa.string(), False),
        ]
    )
    types = {
        "length": pa.int64(),
        "truncated": pa.bool_(),
        "opinions": pa.int64(),
        "marks": pa.list_(pa.field("mark", mark, False)),
    }
    optional = ("outcome", "annotator", "operator_mark", "policy_checkpoint", "quality")
    schema = pa.schema(
        [pa.field(f.name, types.get(f.name, pa.string()), f.name in optional) for f in fields(SnapshotRow)],
        metadata={
            _DIGEST_KEY: digest.encode(),
            _VERSION_KEY: str(_VERSION).encode(),
            _DISPUTED_KEY: str(disputed).encode(),
        },
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), buffer)
    return buffer.getvalue()


def _row(entry: EpisodeEntry, labels: dict[str, Label], opinions: dict[str, list[Opinion]]) -> SnapshotRow:
    label = labels.get(entry.id)
    said: Sequence[Label | Opinion] = () if label is None else (label,)
    if label is not None and label.role not in SETTLING and entry.id in opinions:
        said = sorted(opinions[entry.id], key=lambda opinion: opinion.annotator)
    return SnapshotRow(
        episode_id=entry.id,
        task=entry.info.task,
        outcome=None if label is None else label.outcome,
        annotator=" + ".join(one.annotator for one in said) or None,
        operator=entry.info.operator,
        operator_mark=entry.info.operator_mark,
        robot=entry.info.robot,
        policy_checkpoint=entry.info.policy_checkpoint,
        created=entry.info.created,
        length=entry.length,
        truncated=entry.info.truncated,
        fingerprint=entry.fingerprint,
        opinions=len(said),
        quality=worst_quality([one.quality for one in said]),
        marks=next((one.marks for one in said if one.marks), ()),
    )


def _digest(rows: Iterable[SnapshotRow], disputed: int, version: int = _VERSION) -> str:
    """Of the rows themselves, not of the Parquet file, whose bytes change with the library's version."""
    hasher = hashlib.sha256()
    for row in rows:
        columns = {name: value for name, value in asdict(row).items() if _ADDED.get(name, 1) <= version}
        hasher.update(json.dumps(columns, sort_keys=True).encode() + b"\n")
    if version > 1:
        hasher.update(json.dumps({"version": version, "disputed": disputed}, sort_keys=True).encode())
    return hasher.hexdigest()
