"""``recap status``: what there is and what to do next; changes nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.episode import Source
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.commands.episodes import current_labels, outcome_of
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table
from workflows.ledger import Ledger

_OUTCOMES = ("success", "failure", "exclude", "unlabelled")


def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """What there is, who is the champion, what to do next. Reads the workspace, writes nothing."""
    found = existing_workspace(workspace)
    entries = found.list_episodes()
    labels = current_labels(found)
    counts = Counter((e.info.task, _kind(e), outcome_of(e, labels)) for e in entries)
    kinds = sorted({(task, kind) for task, kind, _ in counts})
    rows = [[task, kind, *(counts[task, kind, outcome] for outcome in _OUTCOMES)] for task, kind in kinds]
    if rows:
        print(table(["task", "episodes of", *_OUTCOMES], rows))
    unlabelled = sum(count for (_, _, outcome), count in counts.items() if outcome == "unlabelled")
    hours = sum(e.length / e.info.rate_hz for e in entries) / 3600
    print(f"\n{len(entries)} episodes, {hours:.2f} hours, {unlabelled} unlabelled")
    for part in found.unfinished():
        print(f"unfinished recording: {part}")
    _show_iterations(found)
    print(f"next: {_next(found, len(entries), unlabelled)}")


def _show_iterations(workspace: Workspace) -> None:
    ledger = Ledger(workspace)
    for iteration in ledger.iterations():
        reason = iteration.summary.get("reason", "")
        print(f"iteration {iteration.n} ({iteration.recorded}): {reason}".rstrip(": "))
    champion = ledger.champion()
    if champion is None:
        print("champion: none yet")
    else:
        origin = "base" if champion.iteration == 0 else f"iteration {champion.iteration}"
        print(f"champion: {origin}, {champion.path}\n          {champion.reason}")


def _next(workspace: Workspace, episodes: int, unlabelled: int) -> str:
    option = "" if workspace.root == DEFAULT_WORKSPACE else f" --workspace {workspace.root}"
    if episodes == 0:
        return f"recap demo{option} (simulation), or recap record{option}"
    if unlabelled:
        return f"recap label{option} ({unlabelled} episodes wait)"
    if Ledger(workspace).champion() is None or not _used_all(workspace):
        return f"recap improve{option}"
    return f"recap rollout{option}: let the champion try, and correct it"


def _used_all(workspace: Workspace) -> bool:
    """Whether nothing was recorded or labelled since the last iteration."""
    iterations = Ledger(workspace).iterations()
    if not iterations:
        return False
    changed: list[Path] = [entry.path for entry in workspace.list_episodes()]
    noted = workspace.ledger_path.stat().st_mtime
    return all(path.stat().st_mtime <= noted for path in [*changed, workspace.labels_path] if path.exists())


def _kind(entry: EpisodeEntry) -> str:
    if entry.info.policy_checkpoint is None:
        return "demonstration"
    try:
        with EpisodeReader(entry.path) as reader:
            corrected = bool((reader.sources == Source.INTERVENTION).any())
    except InputError:
        return "damaged (see recap episodes check)"
    return "corrected rollout" if corrected else "rollout"
