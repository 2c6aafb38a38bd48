"""``recap status``: what there is and what to do next; changes nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.workspace import Workspace
from workflows.commands.episodes_list import current_outcomes, outcome_of
from workflows.commands.options import DEFAULT_WORKSPACE, WorkspaceOption, existing_workspace, table
from workflows.ledger import Ledger

_KINDS = {
    "person": "demonstration",
    "policy": "rollout",
    "corrected": "corrected rollout",
    "unknown": "damaged (see recap episodes check)",
}
DISPUTED = "disputed"
_OUTCOMES = ("success", "failure", "exclude", DISPUTED, "unlabelled")


def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """What there is, who is the champion, what to do next. Reads the workspace, writes nothing."""
    found = existing_workspace(workspace)
    items = found.index()
    outcomes = current_outcomes(found)
    counts = Counter((i.entry.info.task, _KINDS[i.driver], outcome_of(i.entry, outcomes)) for i in items)
    kinds = sorted({(task, kind) for task, kind, _ in counts})
    disputed = sum(count for (_, _, outcome), count in counts.items() if outcome == DISPUTED)
    columns = [outcome for outcome in _OUTCOMES if outcome != DISPUTED or disputed]
    rows = [[task, kind, *(counts[task, kind, outcome] for outcome in columns)] for task, kind in kinds]
    if rows:
        print(table(["task", "episodes of", *columns], rows))
    unlabelled = sum(count for (_, _, outcome), count in counts.items() if outcome == "unlabelled")
    hours = sum(i.entry.length / i.entry.info.rate_hz for i in items) / 3600
    print(f"\n{len(items)} episodes, {hours:.2f} hours, {unlabelled} unlabelled")
    for part in found.unfinished():
        print(f"unfinished recording: {part}")
    _show_iterations(found)
    if disputed:
        print(f"{disputed} disputed: a reviewer decides, in the app or by 'recap label disputes'")
    print(f"next: {_next(found, len(items), unlabelled)}")


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
