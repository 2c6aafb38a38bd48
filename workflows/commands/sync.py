"""``recap sync``: a workspace to an object store and back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from workflows.commands.options import (
    DEFAULT_WORKSPACE,
    WorkspaceOption,
    command_group,
    existing_workspace,
    table,
)
from workflows.disk_usage import size_in_words

if TYPE_CHECKING:
    from pipeline.object_store import ObjectStore
    from workflows.remote_plan import Conflict, Difference, SyncPlan
    from workflows.remote_sync import Sync, SyncResult

app = command_group("Bring a workspace to an object store (S3, GCS, Azure, a folder) and back.")

_RemoteOption = Annotated[
    str | None,
    typer.Option(
        "--remote", metavar="URL", help="The store; default: [remote] of the workspace's recap.toml."
    ),
]
_DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")]
_OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PART", help="episodes, labels or steps; may be given several times."),
]
_OverwriteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--overwrite",
        metavar="NAME",
        help="Let this side's win where NAME was changed on both; a copy is kept.",
    ),
]
# Seconds between two lines of progress where nobody looks at a screen.
_QUIET_S = 30.0
_SHOWN = 20


@app.command()
def push(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    remote: _RemoteOption = None,
    dry_run: _DryRunOption = False,
    only: _OnlyOption = None,
    overwrite: _OverwriteOption = None,
) -> None:
    """Sends what is new here: episodes, labels, snapshots, steps, the ledger, links, recap.toml.

    Never deletes anything and never overwrites a database that was changed there: that is a conflict, with
    exit status 2, after everything else was sent. May be given while other commands work. What is damaged
    here is named and not sent.
    """
    found = existing_workspace(workspace)
    sync = _sync(found, _store(found, remote), only, overwrite)
    if dry_run:
        _tell_plan(sync.plan(), "push")
        return
    began = time.monotonic()
    _conclude(sync.push(), "pushed", "push", began)


@app.command()
def pull(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    remote: _RemoteOption = None,
    dry_run: _DryRunOption = False,
    only: _OnlyOption = None,
    overwrite: _OverwriteOption = None,
) -> None:
    """Brings what is new in the store; into an empty folder, the whole workspace.

    Everything is checked against its hash before it appears. A database that was changed here as well is a
    conflict, with exit status 2. Refused while another command works in the workspace.
    """
    from workflows.driver_lock import driver_lock

    if workspace.exists() and any(workspace.iterdir() if workspace.is_dir() else [workspace]):
        existing_workspace(workspace)
    found = Workspace(workspace)
    sync = _sync(found, _store(found, remote), only, overwrite)
    if dry_run:
        _tell_plan(sync.plan(pulling=True), "pull")
        return
    began = time.monotonic()
    with driver_lock(found.create().root):
        result = sync.pull()
    _conclude(result, "pulled", "pull", began)


@app.command()
def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE, remote: _RemoteOption = None) -> None:
    """What is newer here, what is newer in the store, what was changed on both sides, and who works there.

    Reads both, and writes nothing but what this machine knows of the store, in .sync/.
    """
    from workflows.remote_lease import holder, told

    found = existing_workspace(workspace)
    store = _store(found, remote)
    plan = _sync(found, store, None, None).plan()
    driver = holder(store)
    print(f"store: {store.url}")
    rows: list[list[object]] = []
    for kind, here, there in zip(_KINDS, _counts(plan.push), _counts(plan.pull), strict=True):
        rows.append([kind, here, there])
    print(table(["", "to push", "to pull"], rows))
    for conflict in plan.conflicts:
        print(f"changed on both sides: {conflict.name}, there last {conflict.there}")
    if plan.strangers:
        print(f"{plan.strangers} objects there are not this software's: left alone")
    print(f"driver: {told(driver)}" if driver is not None else "driver: none")


_KINDS = ("steps", "episodes", "snapshots", "databases", "links and settings")


def _counts(difference: Difference) -> list[int]:
    episodes = sum(path.startswith("episodes/") for path in difference.files)
    return [
        len(difference.steps),
        episodes,
        len(difference.files) - episodes,
        len(difference.databases),
        len(difference.entries),
    ]


def _store(workspace: Workspace, remote: str | None) -> ObjectStore:
    from workflows.remote_config import require_store

    return require_store(workspace, remote)


def _sync(
    workspace: Workspace, store: ObjectStore, only: Sequence[str] | None, overwrite: Sequence[str] | None
) -> Sync:
    from workflows.remote_plan import PARTS
    from workflows.remote_sync import Sync

    for part in only or ():
        if part not in PARTS[:-1]:
            raise InputError(f"--only {part}: give one of {', '.join(PARTS[:-1])}")
    return Sync(workspace, store, tuple(only) if only else PARTS, tuple(overwrite or ()), _progress())


def _progress() -> Callable[[str, int, int], None]:
    """On a screen one line that is written over; elsewhere a line now and then."""
    told = time.monotonic()

    def tell(name: str, done: int, total: int) -> None:
        nonlocal told
        now, screen = time.monotonic(), sys.stderr.isatty()
        if now - told < (0.1 if screen else _QUIET_S):
            return
        told = now
        line = f"{done} of {total}: {name}"
        print(
            f"\r\x1b[K{line[:100]}" if screen else line,
            end="" if screen else "\n",
            file=sys.stderr,
            flush=True,
        )

    return tell


def _tell_plan(plan: SyncPlan, direction: str) -> None:
    chosen = plan.push if direction == "push" else plan.pull
    names = chosen.names()
    for name in names[:_SHOWN]:
        print(f"would {direction} {name}")
    if len(names) > _SHOWN:
        print(f"... and {len(names) - _SHOWN} more")
    print(f"{_summary(chosen)}; nothing was moved")
    _refuse(plan.conflicts, direction)


def _summary(difference: Difference) -> str:
    counts = [f"{number} {kind}" for kind, number in zip(_KINDS, _counts(difference), strict=True) if number]
    return ", ".join(counts) or "nothing is new"


def _conclude(result: SyncResult, done: str, direction: str, began: float) -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    traffic = result.traffic
    if result.moved:
        print(
            f"{len(result.moved)} {done}: {traffic.objects} objects, {size_in_words(traffic.bytes)} in "
            f"{seconds:.1f} s"
        )
    elif not result.faults and not result.conflicts:
        print(f"nothing is new ({seconds:.1f} s)")
    for fault in result.faults:
        print(f"not {done}: {fault}", file=sys.stderr)
    _refuse(result.conflicts, direction)
    if result.faults:
        raise Failure(f"{len(result.faults)} could not be {done}, see above")


def _refuse(conflicts: Sequence[Conflict], direction: str) -> None:
    """Raises ``InputError`` where something was changed on both sides."""
    if not conflicts:
        return
    for conflict in conflicts[1:]:
        print(f"changed on both sides: {conflict.name}, there last {conflict.there}", file=sys.stderr)
    first = conflicts[0]
    more = f", as were {len(conflicts) - 1} others" if len(conflicts) > 1 else ""
    raise InputError(
        f"{first.name} was changed here and in the store, there last {first.there}{more}: it was left alone. "
        f"{first.advice[0].upper()}{first.advice[1:]}"
    )
