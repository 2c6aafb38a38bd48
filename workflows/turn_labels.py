"""The labels that a turn works on: frozen, given by the scripted annotator, and of both outcomes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot, freeze
from pipeline.labels import LabelStore
from pipeline.workspace import EpisodeEntry, Workspace
from workflows.label_loss import episodes_lost, require_labels_not_lost
from workflows.simulated_labelling import label_from_notes

_LOG = logging.getLogger(__name__)


def freeze_labels(workspace: Workspace, episode_ids: Sequence[str], into: Path | None = None) -> Snapshot:
    """Freezes the labels of these episodes, without those that a person excluded.

    Labelled episodes that are gone are left out, and named in a warning. ``into``: the folder for the
    snapshot; default: the workspace's ``snapshots/``.
    """
    wanted = set(episode_ids)
    listed = workspace.list_episodes()
    entries = [entry for entry in listed if entry.id in wanted]
    missing = wanted - {entry.id for entry in entries}
    if missing:
        raise InputError(
            f"episode {min(missing)} was recorded but is gone from {workspace.episodes}: "
            "put it back, or start in a new workspace"
        )
    require_labels_not_lost(workspace)
    with LabelStore(workspace.labels_path) as store:
        labels = store.current()
        used = [name for name, label in labels.items() if label.outcome != "exclude"]
        lost = episodes_lost(workspace, used, {entry.id for entry in listed})
        if lost:
            _LOG.warning("%s", lost)
        kept = [e for e in entries if e.id not in labels or labels[e.id].outcome != "exclude"]
        return freeze(store, kept, into or workspace.root / "snapshots")


def label_simulated(workspace: Workspace, episode_ids: Sequence[str]) -> int:
    """Lets the scripted annotator label what nobody has labelled yet."""
    with LabelStore(workspace.labels_path) as store:
        labelled = store.current()
    if all(episode_id in labelled for episode_id in episode_ids):
        return 0
    wanted = set(episode_ids)
    entries: list[EpisodeEntry] = [e for e in workspace.list_episodes() if e.id in wanted]
    return label_from_notes(workspace, episode_ids, {e.id: e.info.task for e in entries})


def waiting_for_labels(workspace: Workspace, episode_ids: Sequence[str]) -> str:
    """One line where episodes have no label yet; empty where all have one.

    Raises ``InputError`` where the labels were lost: opening what is left of them would make a new store.
    """
    require_labels_not_lost(workspace)
    if not workspace.labels_path.exists():
        return ""
    with LabelStore(workspace.labels_path) as store:
        labelled = store.current()
    waiting = sum(episode_id not in labelled for episode_id in episode_ids)
    if not waiting:
        return ""
    some = "1 episode has" if waiting == 1 else f"{waiting} episodes have"
    return f"{some} no label: nothing is learnt from what nobody labelled, see 'recap label'"


def require_both_outcomes(snapshot: Snapshot) -> None:
    """A value model needs successes and failures; says which are missing."""
    found = {row.outcome for row in snapshot.rows}
    for outcome in ("success", "failure"):
        if outcome not in found:
            raise InputError(
                f"no episode is labelled {outcome}: a value model needs successes and failures; "
                "label some with 'recap label'"
            )
