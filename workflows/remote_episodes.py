"""The episodes that a step reads, on a worker's own disk: exactly the recordings that its snapshot names.

An episode keeps its id when it is repaired or recorded again. The store keeps all its contents; which one a
snapshot means, its fingerprint says.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pipeline.errors import Failure
from pipeline.label_snapshot import read_snapshot
from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from workflows.remote_layout import Content, file_of
from workflows.remote_transport import Transport


def contents(store: ObjectStore, prefix: str) -> dict[str, list[Content]]:
    """The files below a folder of the store, by their path in the workspace; each content, newest first."""
    found: dict[str, list[Content]] = {}
    for one in sorted(store.listing(prefix), key=lambda one: (one.modified, one.path), reverse=True):
        named = file_of(one.path)
        if named is not None:
            path, sha256 = named
            found.setdefault(path, []).append(Content(sha256, one.size))
    return found


def newest(store: ObjectStore, prefix: str) -> dict[str, Content]:
    """As :func:`contents`, of each file the newest."""
    return {path: found[0] for path, found in contents(store, prefix).items()}


def is_of_a_person(workspace: Workspace) -> bool:
    """Whether this is more than a worker's share, which has no databases: nothing in it is replaced."""
    return workspace.labels_path.exists() or workspace.ledger_path.exists()


def bring_episodes(transport: Transport, snapshot: Path) -> None:
    """Every episode of the snapshot is here afterwards, with the fingerprint that the snapshot names.

    Where a person works, too, only those that are missing are fetched, and none is replaced. Raises
    ``Failure`` naming one that the store lacks.
    """
    workspace = Workspace(transport.root)
    rows = [(workspace.episode_path(row.task, row.episode_id), row) for row in read_snapshot(snapshot)]
    wanted = {path.relative_to(transport.root).as_posix(): row.fingerprint for path, row in rows}
    if is_of_a_person(workspace):
        lacking = [path for path in wanted if not (transport.root / path).exists()]
    else:
        lacking = _unlike(workspace, wanted, wanted)
    folders = {path.rpartition("/")[0] for path in lacking}
    left = {path: found for folder in folders for path, found in contents(transport.store, folder).items()}
    while lacking:
        without = [path for path in lacking if not left.get(path)]
        if without:
            others = f" ({len(without)} episodes in all)" if len(without) > 1 else ""
            raise Failure(
                f"{transport.store.url} lacks {without[0]}{others} as {snapshot.name} names it: send it with "
                "'recap sync push' from the machine that recorded it"
            )
        transport.each(lambda path: transport.bring_file(path, left[path].pop(0)), lacking, threads=16)
        lacking = _unlike(workspace, wanted, lacking)


def _unlike(workspace: Workspace, wanted: dict[str, str], asked: Collection[str]) -> list[str]:
    """Those of the files ``asked`` that are not here, cannot be read, or have another fingerprint.

    Each file is opened once, by a child process; the index in the cache keeps what it said.
    """
    here = {
        item.entry.path.relative_to(workspace.root).as_posix(): item.entry.fingerprint
        for item in workspace.index()
    }
    return [path for path in asked if here.get(path) != wanted[path]]
