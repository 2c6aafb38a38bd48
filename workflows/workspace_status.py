"""How a workspace stands: the champion, what is new since, what waits for people, disk. Only reads.

It is to be fast with thousands of episodes and steps: episodes come from their index, steps' sizes from the
log of completions, and other folders are looked at up to a number of files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.episode_index import IndexedEpisode
from pipeline.errors import Failure, InputError
from pipeline.labels import LabelStore
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from workflows.completion_log import ListedStep
from workflows.disk_usage import Usage, usage_of
from workflows.driver_lock import holder
from workflows.gc_plan import VALUE_MODEL, plan_gc
from workflows.ledger import Champion, Iteration, Ledger
from workflows.lineage import trace
from workflows.schedule_conditions import WorkspaceCount
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

    ``counts`` are episodes by task, kind and outcome. ``new_episodes`` and ``new_labels`` are what the last
    iteration did not use, as conditions of schedules count it. ``to_record`` are sentences, and so are
    ``problems``: what could not be read, and what to do about it. ``busy`` is the process that works in the
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
    busy: str | None
    problems: list[str]
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
            "problems": self.problems,
            "disk": {kind: {"bytes": u.bytes, "complete": u.complete} for kind, u in self.disk.items()},
            "removable_bytes": self.removable,
        }


class _Reading:
    """Reads parts that may be damaged, and notes what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def get[T](self, read: Callable[[], T], otherwise: T) -> T:
        """What ``read`` returns, or ``otherwise`` where the file it reads is damaged or locked."""
        try:
            return read()
        except (InputError, Failure) as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return otherwise


def workspace_status(workspace: Workspace) -> WorkspaceStatus:
    """Looks at everything once; what cannot be read is among the ``problems``, and the rest is told."""
    store, ledger, reading = StepStore(workspace.steps), Ledger(workspace), _Reading()
    count = WorkspaceCount(workspace, datetime.now(UTC))
    labels: dict[str, tuple[str, datetime]] = reading.get(lambda: count.labels, {})
    outcomes = {name: outcome for name, (outcome, _) in labels.items()}
    counts = Counter(
        (i.entry.info.task, KINDS[i.driver], outcomes.get(i.entry.id, UNLABELLED)) for i in count.items
    )
    champion = reading.get(ledger.champion, None)
    listed = reading.get(store.listed, None)
    by_outcome = Counter(outcome for _, _, outcome in counts.elements())
    second = reading.get(lambda: _awaiting_second(workspace), 0)
    return WorkspaceStatus(
        counts=counts,
        hours=sum(i.entry.length / i.entry.info.rate_hz for i in count.items if i.entry.info.rate_hz > 0)
        / 3600,
        unfinished=workspace.unfinished(),
        waiting=Waiting(by_outcome[UNLABELLED], second, by_outcome[DISPUTED]),
        iterations=reading.get(ledger.iterations, []),
        champion=champion,
        champion_steps=reading.get(lambda: len(trace(store, [champion])) if champion else 0, 0),
        new_episodes=reading.get(lambda: count.new_episodes, 0),
        new_labels=reading.get(lambda: count.new_labelled_episodes, 0),
        to_record=_to_record(count.items, outcomes, champion),
        value_model=_value_model(workspace),
        busy=holder(workspace.root),
        disk=_disk(workspace, listed or []),
        removable=reading.get(lambda: plan_gc(workspace, listed=listed).bytes, None),
        problems=reading.problems,
    )


def _awaiting_second(workspace: Workspace) -> int:
    """How many episodes wait for a second opinion, by the site's rules."""
    if not workspace.labels_path.exists():
        return 0
    rules = load_site_config(workspace.config_path).labels
    with LabelStore(workspace.labels_path, rules=rules) as store:
        return store.progress().awaiting_second


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
        saved = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        return ValueModel(len(document["members"]), str(document["snapshot"]), saved)
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
