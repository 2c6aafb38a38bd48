"""What ``recap policy train`` starts from: ``champion``, ``base``, a folder, a hub id, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.workspace import Workspace
from workflows.labelled_subtasks import with_any_name
from workflows.ledger import Ledger
from workflows.policy_evaluation import BASE, CHAMPION, find_checkpoint
from workflows.step_files import CHECKPOINT

# Fields of configurations that name weights which a new policy takes over, beside its own random ones.
_BACKBONES = ("pretrained_backbone_weights", "pretrained_backbone", "vlm", "vlm_model_name")


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
        return Start(None, "from scratch: random weights")
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


def pretrained_words(policy_type: str, options: Mapping[str, Any]) -> str:
    """What of a new policy is not random, to be said behind :class:`Start`'s words; empty for nothing.

    By the options and the type's defaults: ACT's image encoder is ImageNet's unless an option says null.
    Loads LeRobot; raises ``InputError`` for options that the type does not have.
    """
    from pipeline.policy.policy_options import config_class, decoded_options

    values: dict[str, Any] = {field.name: field.default for field in fields(config_class(policy_type))}
    values |= decoded_options(policy_type, with_any_name(options))
    if not values.get("load_vlm_weights", True):
        del values["vlm_model_name"]  # only the network's shape and the tokenizer
    named = [values[name] for name in _BACKBONES if isinstance(values.get(name), str) and values[name]]
    return f", but for the pretrained backbone {', '.join(named)}" if named else ""
