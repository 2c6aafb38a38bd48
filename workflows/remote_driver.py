"""A driver of a workspace that is in a store: alone there while it works; at its end all it made is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import Failure, InputError
from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from workflows.remote_layout import mark
from workflows.remote_lease import LEASE_S, DriverLease, driver_lease
from workflows.remote_sync import Sync

_LEDGER = "runs.sqlite"
# Those that this process holds, by the workspace's folder.
_leases: dict[Path, DriverLease] = {}


@contextmanager
def driving(workspace: Workspace, store: ObjectStore, lease_s: float = LEASE_S) -> Iterator[None]:
    """Within: the lease is held. First, and at the end, everything new is sent.

    At the end also of work that failed or was interrupted (Ctrl-C): what that raised is raised, and if not
    everything could be sent, that is a line on standard error. A second Ctrl-C ends the sending; what was not
    sent, as by a driver that was killed, the next one on this disk sends.

    Raises ``InputError`` naming who holds it, or where the store's ledger is newer than the one here or both
    were changed; ``Failure`` where the lease was lost, or something could not be sent.
    """
    mark(store)
    with driver_lease(store, lease_s) as lease:
        sync = Sync(workspace, store)
        _require_ledger(sync, store)
        # What workers read, recap.toml too; and what is wrong with the store is said now, not after a night.
        _send(sync, store)
        root = workspace.root.absolute()
        _leases[root] = lease
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            # Its steps need not be computed again by who comes next, on whatever machine.
            if not lease.lost.is_set():
                _send_after(error, sync, store)
            raise
        finally:
            del _leases[root]
        lease.require()
        _send(sync, store)


def require_lease(workspace: Workspace) -> None:
    """Raises ``Failure`` where this process drove the workspace in a store and has lost its lease.

    For a driver to call before whatever it would not do beside another one: a promotion, the next step. Costs
    microseconds; does nothing where the workspace is in no store.
    """
    lease = _leases.get(workspace.root.absolute())
    if lease is not None:
        lease.require()


def _require_ledger(sync: Sync, store: ObjectStore) -> None:
    plan = sync.plan(pulling=True)
    for conflict in plan.conflicts:
        if conflict.name == _LEDGER:
            raise InputError(
                f"{_LEDGER} was changed on both sides, here and in {store.url}, there last {conflict.there}: "
                f"{conflict.advice}"
            )
    if _LEDGER in plan.pull.databases:
        written, _ = plan.stored[_LEDGER]
        raise InputError(
            f"{store.url} has a newer {_LEDGER}, written by {written.by} at {written.at}: bring it here "
            "with 'recap sync pull'"
        )


def _send(sync: Sync, store: ObjectStore) -> None:
    result = sync.push()
    if result.conflicts:
        first = result.conflicts[0]
        raise Failure(
            f"everything was sent to {store.url} but {first.name}, which was changed there too, "
            f"{first.there}: see 'recap sync status', and {first.advice}"
        )
    if result.faults:
        raise Failure(f"not everything was sent to {store.url}: {result.faults[0]}")


def _send_after(error: BaseException, sync: Sync, store: ObjectStore) -> None:
    """Sends what is new after ``error``, which is what a person has to be told: this raises nothing else."""
    if isinstance(error, KeyboardInterrupt):
        print(
            f"interrupted: sending what is new to {store.url}; Ctrl-C again leaves it to the next run",
            file=sys.stderr,
            flush=True,
        )
    try:
        _send(sync, store)
    except Exception as another:
        # Whatever it is, even a defect of ours: the work failed for another reason.
        line = " ".join(str(another).split()) or type(another).__name__
        print(f"and what is new could not all be sent to {store.url}: {line}", file=sys.stderr, flush=True)
