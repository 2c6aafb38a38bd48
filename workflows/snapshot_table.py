"""From a frozen label snapshot to the frames that a training step reads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from pipeline.cache_layout import content_key
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache
from pipeline.frame_table import FrameTable
from pipeline.label_snapshot import SnapshotRow, read_snapshot
from pipeline.workspace import Workspace
from value_model.returns import usable_outcomes
from workflows.available_memory import available_bytes
from workflows.local_ray import available_cpus

# Of the memory that is free now; the other half is for networks, optimisers and whoever else is there.
_SHARE = 0.5


def snapshot_table(
    workspace: Path, snapshot: Path, image_size: int, *, preload: bool = True
) -> tuple[FrameTable, list[SnapshotRow]]:
    """All frames of a snapshot's episodes, and the snapshot's rows in the same order.

    ``preload`` copies all images to memory, for who reads them again and again, where they fit
    (:func:`fits_in_memory`); otherwise they stay memory-mapped, which gives the same frames. Episodes that
    the cache lacks are decoded: it may be emptied at any time. Raises ``InputError`` for an episode that is
    damaged, that lacks what a policy reads or imitates, or that is another recording than the snapshot's.
    """
    store = Workspace(workspace)
    cache = FrameCache(store.cache, image_size)
    rows = read_snapshot(snapshot)
    with cache.held():
        cache.build_many([store.episode_path(row.task, row.episode_id) for row in rows])
        ids = [row.episode_id for row in rows]
        preload = preload and fits_in_memory(_image_bytes(cache, rows))
        table = FrameTable.load(cache, ids, preload=preload)
    _require_same(table, rows, snapshot)
    return table, rows


def snapshot_outcomes(rows: Iterable[SnapshotRow]) -> dict[str, str | None]:
    """The outcome of each of the snapshot's episodes; ``None`` where there is nothing to learn from."""
    rows = list(rows)
    return usable_outcomes(
        {row.episode_id: row.outcome for row in rows}, [row.episode_id for row in rows if row.truncated]
    )


def fits_in_memory(image_bytes: int) -> bool:
    """Whether every step that may run at once, one a core, could hold so much in half of what is free now.

    Steps that began before this one hold theirs already; those that begin with it find the same free.
    """
    return image_bytes * available_cpus() <= _SHARE * available_bytes()


def _require_same(table: FrameTable, rows: list[SnapshotRow], snapshot: Path) -> None:
    """Raises ``InputError`` for an episode that was repaired or recorded again since the snapshot was frozen.

    The cache's key of an episode, verified when it was decoded, follows from its fingerprint: some µs each.
    """
    others = [
        row.episode_id
        for row, content in zip(rows, table.contents, strict=True)
        if content != content_key(row.fingerprint, table.cameras)
    ]
    if others:
        more = f" ({len(others)} of {len(rows)} episodes are not)" if len(others) > 1 else ""
        raise InputError(
            f"episode {others[0]} is not the recording that {snapshot.name} was frozen with{more}: it was "
            "repaired or recorded again since; give the command again, which freezes the labels anew, or put "
            "the former recording back"
        )


def _image_bytes(cache: FrameCache, rows: list[SnapshotRow]) -> int:
    if not rows:
        return 0
    of_frame = math.prod(cache.open(rows[0].episode_id).images.shape[1:])
    return of_frame * sum(row.length for row in rows)
