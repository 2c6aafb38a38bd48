"""Removes what :mod:`workflows.gc_plan` found, so that a kill at any moment leaves a workspace that works.

Each thing is first renamed into a trash folder beside it, which takes it away whole, and deleted there. What
a kill leaves in the trash goes with the next driver or the next 'recap gc'.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.workspace import Workspace
from workflows.disk_usage import freed_by_removing, usage_of
from workflows.gc_plan import KEPT_BEFORE, TRASH, Garbage, GcPlan, plan_gc, trash_folders
from workflows.step_store import StepStore


@dataclass(frozen=True)
class Collection:
    """What was removed: ``freed`` bytes by path; and why what was to be removed ``remains``, by path."""

    plan: GcPlan
    freed: dict[Path, int]
    remains: dict[Path, str]


def collect(workspace: Workspace, keep: int = KEPT_BEFORE) -> Collection:
    """Removes everything that can go, and goes on where something cannot be moved or deleted.

    Only for who holds the workspace, that is, within :func:`workflows.driver_lock.driver_lock`. Work that a
    killed process had completed is published first.
    """
    swept, freed = _sweep(workspace)
    plan = plan_gc(workspace, keep)
    freed |= freed_by_removing(one.path for one in plan.garbage)
    remains = {}
    for one in plan.garbage:
        try:
            _move(one.path)
        except OSError as error:
            freed[one.path] = 0
            remains[one.path] = error.strerror or str(error)
    told = replace(plan, garbage=(*plan.garbage, *swept))
    return Collection(told, freed, remains | empty_trash(workspace))


def _sweep(workspace: Workspace) -> tuple[list[Garbage], dict[Path, int]]:
    """Publishes complete work and removes the rest, which belongs to what was removed as any other."""
    store = StepStore(workspace.steps)
    unfinished = [Garbage("unfinished steps", path, usage_of(path).bytes) for path in store.left_behind()]
    freed = freed_by_removing(one.path for one in unfinished)
    store.sweep()
    gone = [one for one in unfinished if not one.path.exists()]
    return gone, {one.path: freed[one.path] for one in gone}


def empty_trash(workspace: Workspace) -> dict[Path, str]:
    """Deletes what was moved aside; returns what could not be deleted, and why."""
    remains = {}

    def note(_: object, path: str, error: BaseException) -> None:
        remains[Path(path)] = getattr(error, "strerror", None) or str(error)

    for folder in trash_folders(workspace):
        shutil.rmtree(folder, onexc=note)
    return remains


def _move(path: Path) -> None:
    if path.name == TRASH:
        return
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return
    # Beside it: the folder above may be a link to another disk, to which nothing can be renamed.
    trash = path.parent / TRASH
    trash.mkdir(exist_ok=True)
    path.rename(trash / uuid.uuid4().hex)
