"""A driver of a workspace that is in a store: alone there while it works; at its end all it made is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import Failure, InputError
from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from workflows.remote_layout import mark
from workflows.remote_lease import LEASE_S, driver_lease
from workflows.remote_sync import Sync

_LEDGER = "runs.sqlite"


@contextmanager
def driving(workspace: Workspace, store: ObjectStore, lease_s: float = LEASE_S) -> Iterator[None]:
    """Within: the lease is held. First, and at the end, also of work that failed, everything new is sent.

    Raises ``InputError`` naming who holds it, or where another machine has written the store's ledger since;
    ``Failure`` where the lease was lost, or something could not be sent.
    """
    mark(store)
    with driver_lease(store, lease_s) as lease:
        sync = Sync(workspace, store)
        plan = sync.plan(pulling=True)
        if _LEDGER in plan.pull.databases or any(one.name == _LEDGER for one in plan.conflicts):
            written, _ = plan.stored[_LEDGER]
            raise InputError(
                f"{store.url} has a newer {_LEDGER}, written by {written.by} at {written.at}: bring it here "
                "with 'recap sync pull'"
            )
        # What workers read, recap.toml too; and what is wrong with the store is said now, not after a night.
        _send(sync, store)
        try:
            yield
        except Exception:
            # Its steps need not be computed again by who comes next, on whatever machine.
            if not lease.lost.is_set():
                sync.push()
            raise
        lease.require()
        _send(sync, store)


def _send(sync: Sync, store: ObjectStore) -> None:
    result = sync.push()
    if result.conflicts:
        first = result.conflicts[0]
        raise Failure(
            f"everything was sent to {store.url} but {first.name}, which was changed there too, "
            f"{first.there}: see 'recap sync status'"
        )
    if result.faults:
        raise Failure(f"not everything was sent to {store.url}: {result.faults[0]}")
