"""Whether the champion's checkpoint is there and whole, asked before anything is begun with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.ledger import Champion, Ledger
from workflows.step_store import StepStore

HASHED_AT_MOST = 64 * 2**20
"""Bytes of a checkpoint up to which a quick look reads it all; of a larger one it asks for the sizes."""


def require_champion(workspace: Workspace) -> Champion:
    """The champion, whose checkpoint was read to the end and is what was published.

    Raises ``InputError`` where there is none yet, and where its checkpoint is gone or was changed.
    """
    champion = Ledger(workspace).champion()
    if champion is None:
        raise InputError("there is no champion to roll out: train one with 'recap improve' or 'recap demo'")
    fault = champion_fault(StepStore(workspace.steps), champion, hashed_at_most=None)
    if fault:
        raise InputError(fault)
    return champion


def champion_fault(store: StepStore, champion: Champion, hashed_at_most: int | None = HASHED_AT_MOST) -> str:
    """What is wrong with the champion's checkpoint and what to do, in a sentence; empty where it is whole.

    One of more than ``hashed_at_most`` bytes (``None``: any) is not read, only its files' sizes are compared.
    Raises ``InputError`` for a damaged manifest.
    """
    result = store.find(champion)
    if result is None:
        return gone(champion)
    recorded: dict[str, Any] = result.manifest["files"]
    sizes = {result.path / name: facts["bytes"] for name, facts in recorded.items()}
    damaged = [path for path, size in sizes.items() if _size(path) != size]
    small = hashed_at_most is None or sum(sizes.values()) <= hashed_at_most
    if not damaged and small:
        damaged = [Path(path) for path in store.verify(result)]
    if not damaged:
        return ""
    return (
        f"the champion's checkpoint is damaged, {damaged[0]} is gone or was changed: put it back from a "
        "copy, or choose another champion by 'recap rollback'"
    )


def gone(champion: Champion) -> str:
    """The sentence where the folder, or its manifest, is not there."""
    return (
        f"the champion's checkpoint is gone, {champion.path}, so it is not known what it came from: "
        "put the folder back, or choose another champion by 'recap rollback'"
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
