"""From a frozen label snapshot to the frames that a training step reads."""

from __future__ import annotations

from pathlib import Path

from pipeline.frame_cache import FrameCache
from pipeline.frame_table import FrameTable
from pipeline.label_snapshot import SnapshotRow, read_snapshot
from pipeline.workspace import Workspace


def snapshot_table(
    workspace: Path, snapshot: Path, image_size: int, *, preload: bool = True
) -> tuple[FrameTable, list[SnapshotRow]]:
    """All frames of a snapshot's episodes, and the snapshot's rows in the same order.

    ``preload`` copies all images to memory, for who reads them again and again. Episodes that the cache
    lacks are decoded: it may be emptied at any time. Raises ``InputError`` for an episode that is
    damaged, or that lacks what a policy reads or imitates.
    """
    store = Workspace(workspace)
    cache = FrameCache(store.cache, image_size)
    rows = read_snapshot(snapshot)
    with cache.held():
        cache.build_many([store.episode_path(row.task, row.episode_id) for row in rows])
        table = FrameTable.load(cache, [row.episode_id for row in rows], preload=preload)
    return table, rows
