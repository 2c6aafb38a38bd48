"""``recap gc``: frees the disk of what no champion needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.counted_words import counted
from pipeline.errors import Failure, InputError
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table
from workflows.disk_usage import freed_by_removing, size_in_words
from workflows.gc_plan import KEPT_BEFORE, WHY, Garbage, GcPlan, plan_gc


def gc(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    keep: Annotated[
        int, typer.Option(help="How many champions before this one stay, for 'recap rollback'.", min=0)
    ] = KEPT_BEFORE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed; this is the default.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
) -> None:
    """Frees the disk of what no champion needs; without --yes, only says what that is.

    Reads runs.sqlite, steps/ and value-model.json. With --yes removes steps and left-overs of training in
    steps/, scoring runs in cache/, and links in datasets/. Never touches episodes, labels, snapshots,
    reports or runs.sqlite. Refused while another command works in the workspace. Decoded frames are the
    business of 'recap cache trim'.
    """
    from workflows.driver_lock import driver_lock
    from workflows.gc_removal import collect

    if dry_run and yes:
        raise InputError("--dry-run and --yes contradict each other: give one of them")
    found = existing_workspace(workspace)
    remains: dict[Path, str] = {}
    if yes:
        with driver_lock(found.root):
            done = collect(found, keep)
        plan, freed, remains = done.plan, done.freed, done.remains
    else:
        plan = plan_gc(found, keep)
        freed = freed_by_removing(one.path for one in plan.garbage)
    _show(plan, freed)
    size = size_in_words(sum(freed.values()))
    if yes:
        print(f"removed; {size} freed")
        for path, why in remains.items():
            print(f"not removed: {path}: {why}")
        if remains:
            raise Failure(f"{len(remains)} files or folders could not be removed, see above")
    elif plan.garbage:
        print(f"this would free {size}; nothing was removed: add --yes to do it")


def _show(plan: GcPlan, freed: dict[Path, int]) -> None:
    rows: list[list[object]] = []
    for kind, why in WHY.items():
        chosen = [one for one in plan.garbage if one.kind == kind]
        if chosen:
            rows.append(_row(kind, chosen, freed, why))
        if kind == "steps":
            names = sorted({one.path.parent.name for one in chosen})
            rows += [
                _row(f"  {name}", [one for one in chosen if one.path.parent.name == name], freed, "")
                for name in names
            ]
    if rows:
        print(table(["to remove", "number", "MiB", "MiB freed", "why"], rows))
    else:
        print("there is nothing to remove")
    if any(one.bytes > freed[one.path] for one in plan.garbage):
        print("(videos that other datasets or the cache use too stay on the disk)")
    kept = [champion.origin for champion in plan.champions]
    if plan.last_iteration is not None and plan.last_iteration not in {c.iteration for c in plan.champions}:
        kept.append(f"iteration {plan.last_iteration}, the last")
    print(
        f"kept: what {', '.join(kept) or 'the next iteration'} came from, reports and evaluations: "
        f"{counted(plan.kept_steps, 'step')}, {size_in_words(plan.kept_bytes)}"
    )
    print("kept in any case: episodes, labels, snapshots, the ledger")


def _row(name: str, chosen: list[Garbage], freed: dict[Path, int], why: str) -> list[object]:
    size = sum(one.bytes for one in chosen) / 2**20
    gained = sum(freed[one.path] for one in chosen) / 2**20
    return [name, len(chosen), round(size, 1), round(gained, 1), why]
