"""What ``recap policy train`` starts from: ``champion``, ``base``, a folder, a hub id, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.workspace import Workspace
from workflows.ledger import Ledger
from workflows.policy_evaluation import BASE, CHAMPION, find_checkpoint
from workflows.step_files import CHECKPOINT


@dataclass(frozen=True)
class Start:
    """``path`` is a folder or a hub id, ``None`` for new weights; ``words`` say it to a person."""

    path: str | None
    words: str


def find_start(given: str | None, workspace: Workspace) -> Start:
    """As ``recap policy evaluate`` finds checkpoints; ``InputError`` where there is no champion yet.

    Only the folder counts, and by what is in it: which word led to it makes no difference.
    """
    if given is None:
        return Start(None, "from scratch: random weights, but for a pretrained backbone that an option names")
    if given in (CHAMPION, BASE):
        found = find_checkpoint(given, workspace)
        history = Ledger(workspace).champions()
        one = history[-1] if given == CHAMPION else history[0]
        made = "which is the base policy" if one.iteration == 0 else f"of iteration {one.iteration}"
        name = f"{one.name}/{one.key[:8]}"
        what = f"the base policy {name}" if given == BASE else f"the champion {name} {made}"
        return Start(str(found.folder), f"from {what}")
    if (Path(given) / CHECKPOINT).is_dir():
        given = str(find_checkpoint(given, workspace).folder)
    return Start(given, f"from {given}")
