"""How a workspace stands: the champion, what is new since, what waits for people, disk. Only reads.

It is to be fast with thousands of episodes and steps: episodes come from their index, steps' sizes from the
log of completions, and other folders are looked at up to a number of files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.durable_files import process_exists
from pipeline.episode_index import IndexedEpisode
from pipeline.errors import InputError
from pipeline.labels import LabelStore
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from workflows.completion_log import ListedStep
from workflows.disk_usage import Usage, usage_of
from workflows.gc_plan import VALUE_MODEL, plan_gc
from workflows.ledger import Champion, Iteration, Ledger
from workflows.lineage import trace
from workflows.step_recipe import StepAddress
from workflows.step_store import StepStore

KINDS = {
    "person": "demonstration",
    "policy": "rollout",
    "corrected": "corrected rollout",
    "unknown": "damaged (see recap episodes check)",
}
UNLABELLED, DISPUTED = "unlabelled", "disputed"


@dataclass(frozen=True)
class Waiting:
    """Episodes that wait for somebody: to be labelled, for a second opinion, for a reviewer."""

    unlabelled: int
    second_opinion: int
    disputed: int


@dataclass(frozen=True)
class ValueModel:
    """The value models in use: how many, on which labels (the beginning of the digest), since when (UTC)."""

    members: int
    labels: str
    saved: str


@dataclass(frozen=True)
class WorkspaceStatus:
    """Everything that 'recap status' says.

    ``counts`` are episodes by task, kind and outcome. ``new_episodes`` and ``new_labels`` came after those
    that the last iteration used. ``to_record`` are sentences. ``busy`` is the process that works in the
    workspace now.
    """

    counts: Counter[tuple[str, str, str]]
    hours: float
    unfinished: list[Path]
    waiting: Waiting
    iterations: list[Iteration]
    champion: Champion | None
    champion_steps: int
    new_episodes: int
    new_labels: int
    to_record: list[str]
    value_model: ValueModel | None
    busy: int | None
    disk: dict[str, Usage] = field(default_factory=dict)
    removable: int | None = None

    @property
    def episodes(self) -> int:
        """All recorded episodes."""
        return self.counts.total()

    def document(self) -> dict[str, Any]:
        """The same as plain JSON; sizes in bytes."""
        champion, value = self.champion, self.value_model
        return {
            "episodes": self.episodes,
            "hours": round(self.hours, 3),
            "counts": [
                {"task": task, "kind": kind, "outcome": outcome, "episodes": count}
                for (task, kind, outcome), count in sorted(self.counts.items())
            ],
            "unfinished": [str(path) for path in self.unfinished],
            "waiting": vars(self.waiting),
            "new_since_last_iteration": {"episodes": self.new_episodes, "labels": self.new_labels},
            "to_record": self.to_record,
            "iterations": [
                {"n": i.n, "candidate": i.candidate, "recorded": i.recorded, "summary": i.summary}
                for i in self.iterations
            ],
            "champion": {**vars(champion), "path": str(champion.path)} if champion is not None else None,
            "value_model": vars(value) if value is not None else None,
            "busy": self.busy,
            "disk": {kind: {"bytes": u.bytes, "complete": u.complete} for kind, u in self.disk.items()},
            "removable_bytes": self.removable,
        }


def workspace_status(workspace: Workspace) -> WorkspaceStatus:
    """Looks at everything once."""
    store, ledger = StepStore(workspace.steps), Ledger(workspace)
    items, listed = workspace.index(), store.listed()
    outcomes, labelled_at, second = _labels(workspace)
    counts = Counter(
        (i.entry.info.task, KINDS[i.driver], outcomes.get(i.entry.id, UNLABELLED)) for i in items
    )
    iterations, champion = ledger.iterations(), ledger.champion()
    since = _data_of(workspace, iterations[-1]) if iterations else ""
    by_outcome = Counter(outcome for _, _, outcome in counts.elements())
    return WorkspaceStatus(
        counts=counts,
        hours=sum(i.entry.length / i.entry.info.rate_hz for i in items if i.entry.info.rate_hz > 0) / 3600,
        unfinished=workspace.unfinished(),
        waiting=Waiting(by_outcome[UNLABELLED], second, by_outcome[DISPUTED]),
        iterations=iterations,
        champion=champion,
        champion_steps=len(trace(store, [champion])) if champion is not None else 0,
        new_episodes=sum(_changed(item.entry.path) > since for item in items),
        new_labels=sum(time > since for time in labelled_at),
        to_record=_to_record(items, outcomes, champion),
        value_model=_value_model(workspace),
        busy=_busy(workspace),
        disk=_disk(workspace, listed),
        removable=_removable(workspace, listed),
    )


def _labels(workspace: Workspace) -> tuple[dict[str, str], list[str], int]:
    """Outcomes by episode, when the labels that hold were given, and how many wait for a second opinion."""
    if not workspace.labels_path.exists():
        return {}, [], 0
    rules = load_site_config(workspace.config_path).labels
    with LabelStore(workspace.labels_path, rules=rules) as store, store.moment():
        labels = store.current()
        disputed = {name: DISPUTED for name, state in store.states().items() if state == DISPUTED}
        second = store.progress().awaiting_second
    outcomes = {name: label.outcome for name, label in labels.items()} | disputed
    return outcomes, [_seconds(label.created_at) for label in labels.values()], second


def _data_of(workspace: Workspace, iteration: Iteration) -> str:
    """Until when episodes and labels were in time for an iteration: when its labels were frozen."""
    store = StepStore(workspace.steps)
    for name, key, _ in Ledger(workspace).steps(iteration.n):
        if key == iteration.candidate:
            (candidate, *_) = trace(store, [StepAddress(name, key)]).values()
            for digest in candidate.snapshots[:1]:
                path = workspace.root / "snapshots" / f"labels-{digest[:16]}.parquet"
                if path.exists():
                    return _changed(path)
    return _seconds(iteration.recorded)


def _changed(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _seconds(time: str) -> str:
    return datetime.fromisoformat(time).astimezone(UTC).isoformat(timespec="seconds")


def _to_record(
    items: Iterable[IndexedEpisode], outcomes: dict[str, str], champion: Champion | None
) -> list[str]:
    """What the next iteration lacks: tasks without a success or a failure, rollouts of the champion."""
    found: dict[str, Counter[str]] = {}
    rolled_out = 0
    for item in items:
        found.setdefault(item.entry.info.task, Counter())[outcomes.get(item.entry.id, UNLABELLED)] += 1
        policy = item.entry.info.policy_checkpoint
        rolled_out += champion is not None and policy == f"{champion.name}/{champion.key}"
    said = []
    for task, counted in sorted(found.items()):
        missing = [outcome for outcome in ("success", "failure") if not counted[outcome]]
        if missing and not counted[UNLABELLED]:
            said.append(f"'{task}' has no {' and no '.join(missing)}: a value model learns from both")
    if champion is not None and not rolled_out:
        said.append("rollouts of the champion: there is none yet")
    return said


def _value_model(workspace: Workspace) -> ValueModel | None:
    path = workspace.root / VALUE_MODEL
    with suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(path.read_text())
        return ValueModel(len(document["members"]), str(document["snapshot"]), _changed(path))
    return None


def _busy(workspace: Workspace) -> int | None:
    """The driver that holds the workspace, as its lock's file says; the lock itself is left alone."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        driver = int(json.loads((workspace.root / ".driver.lock").read_text())["driver"])
        return driver if process_exists(driver) else None
    return None


def _disk(workspace: Workspace, listed: Sequence[ListedStep]) -> dict[str, Usage]:
    return {
        "episodes": usage_of(workspace.episodes),
        "cache": usage_of(workspace.cache),
        "steps": Usage(sum(step.bytes for step in listed), len(listed), complete=True),
        "datasets": usage_of(workspace.datasets),
        "reports": usage_of(workspace.reports),
        "quarantine": usage_of(workspace.quarantine),
    }


def _removable(workspace: Workspace, listed: Sequence[ListedStep]) -> int | None:
    """The bytes that 'recap gc' would remove at most; ``None`` where it would refuse."""
    try:
        return plan_gc(workspace, listed=listed).bytes
    except InputError:
        return None
