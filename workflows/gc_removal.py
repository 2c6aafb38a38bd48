"""Removes what :mod:`workflows.gc_plan` found, so that a kill at any moment leaves a workspace that works.

Each thing is first renamed into a trash folder, which takes it away whole, and deleted there. What a kill
leaves in the trash goes with the next driver or the next 'recap gc'.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from pipeline.workspace import Workspace
from workflows.disk_usage import freed_by_removing
from workflows.gc_plan import KEPT_BEFORE, Garbage, GcPlan, plan_gc, trash_folders
from workflows.step_store import StepStore


def collect(workspace: Workspace, keep: int = KEPT_BEFORE) -> tuple[GcPlan, dict[Path, int]]:
    """Removes everything that can go; returns what that was, and the bytes that each thing gave back.

    Only for who holds the workspace, that is, within :func:`workflows.driver_lock.driver_lock`. Work that a
    killed process had completed is published first. Raises ``OSError`` where something cannot be moved;
    what was moved before is deleted.
    """
    StepStore(workspace.steps).sweep()
    plan = plan_gc(workspace, keep)
    freed = freed_by_removing(one.path for one in plan.garbage)
    try:
        _move(workspace, plan.garbage)
    finally:
        for folder in trash_folders(workspace):
            shutil.rmtree(folder, ignore_errors=True)
    return plan, freed


def _move(workspace: Workspace, garbage: Iterable[Garbage]) -> None:
    folders = trash_folders(workspace)
    for one in garbage:
        if one.path in folders:
            continue
        if one.path.is_symlink():
            one.path.unlink(missing_ok=True)
            continue
        trash = next(folder for folder in folders if one.path.is_relative_to(folder.parent))
        trash.mkdir(exist_ok=True)
        one.path.rename(trash / uuid.uuid4().hex)
