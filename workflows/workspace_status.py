"""How a workspace stands: the champion, what is new since, what waits for people, disk. Only reads.

It is to be fast with thousands of episodes and steps: episodes come from their index, steps' sizes from the
log of completions, and other folders are looked at up to a number of files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.episode_index import IndexedEpisode
from pipeline.errors import Failure, InputError
from pipeline.labels import LabelStore
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from workflows.champion_check import champion_fault
from workflows.disk_usage import freed_by_removing
from workflows.driver_lock import holder
from workflows.gc_plan import GcPlan, plan_gc
from workflows.label_loss import episodes_lost
from workflows.ledger import Champion, Iteration, Ledger
from workflows.ledger_loss import outdated
from workflows.lineage import trace
from workflows.refused_turns import RefusedTurn, refused_since
from workflows.schedule_conditions import WorkspaceCount
from workflows.schedule_state import SchedulesState, schedules_state
from workflows.step_store import StepStore
from workflows.value_models_in_use import read_value_models
from workflows.workspace_disk import DiskState, disk_state

KINDS = {
    "person": "demonstration",
    "policy": "rollout",
    "corrected": "corrected rollout",
    "unknown": "damaged (see recap episodes check)",
}
UNLABELLED, DISPUTED = "unlabelled", "disputed"
UNKNOWN = "not known"
"""The outcome of every episode where the labels cannot be read."""
_LOOKED_AT = 2000  # things to remove, to see what that frees; of more, their sizes are added up


@dataclass(frozen=True)
class Waiting:
    """Episodes that wait for somebody: to be labelled, for a second opinion, for a reviewer.

    Not ``known`` where the labels cannot be read.
    """

    unlabelled: int
    second_opinion: int
    disputed: int
    known: bool = True


@dataclass(frozen=True)
class ValueModel:
    """The value models in use: how many, on which labels (the beginning of the digest).

    ``trained``: when the last of them was (ISO 8601, UTC); ``None`` where their steps are gone.
    """

    members: int
    labels: str
    trained: str | None


@dataclass(frozen=True)
class WorkspaceStatus:
    """Everything that 'recap status' says.

    ``counts`` are episodes by task, kind and outcome. ``new_episodes`` and ``new_labels`` are what the last
    iteration did not use, as conditions of schedules count it. ``to_record`` are sentences, and so are
    ``problems``: what could not be read, and what to do about it. ``busy`` is the process that works in the
    workspace now; ``schedules`` is ``None`` where they cannot be read. ``refused`` is the turn after the last
    iteration where it ended at the gate on values.
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
    disk: DiskState
    schedules: SchedulesState | None = None
    removable: int | None = None
    refused: RefusedTurn | None = None

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
            "refused_turn": self.refused.document() if self.refused is not None else None,
            "champion": {**vars(champion), "path": str(champion.path)} if champion is not None else None,
            "value_model": vars(value) if value is not None else None,
            "busy": self.busy,
            "problems": self.problems,
            "disk": {kind: {"bytes": u.bytes, "complete": u.complete} for kind, u in self.disk.usage.items()},
            "free": self.disk.document(),
            "schedules": self.schedules.document() if self.schedules is not None else None,
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
            self.note(str(error))
            return otherwise

    def note(self, problem: str) -> None:
        """Notes a problem that was found, if any, once."""
        if problem and problem not in self.problems:
            self.problems.append(problem)


def workspace_status(workspace: Workspace) -> WorkspaceStatus:
    """Looks at everything once; what cannot be read is among the ``problems``, and the rest is told."""
    store, ledger, reading = StepStore(workspace.steps), Ledger(workspace), _Reading()
    now = datetime.now(UTC)
    count = WorkspaceCount(workspace, now)
    labels: dict[str, tuple[str, datetime]] | None = reading.get(lambda: count.labels, None)
    outcomes = {name: outcome for name, (outcome, _) in (labels or {}).items()}
    otherwise = UNLABELLED if labels is not None else UNKNOWN
    counts = Counter(
        (i.entry.info.task, KINDS[i.driver], outcomes.get(i.entry.id, otherwise)) for i in count.items
    )
    champion = reading.get(ledger.champion, None)
    iterations: list[Iteration] = reading.get(ledger.iterations, [])
    listed = reading.get(store.listed, None) or []
    by_outcome = Counter(outcome for _, _, outcome in counts.elements())
    second = reading.get(lambda: _awaiting_second(workspace), 0)
    plan = reading.get(lambda: plan_gc(workspace, listed=listed), None)
    if champion is not None:
        reading.note(reading.get(lambda: champion_fault(store, champion), ""))
    reading.note(outdated(workspace, [iteration.n for iteration in iterations]) if champion else "")
    reading.note(reading.get(lambda: _lost(workspace, count), ""))
    return WorkspaceStatus(
        counts=counts,
        hours=sum(i.entry.length / i.entry.info.rate_hz for i in count.items if i.entry.info.rate_hz > 0)
        / 3600,
        unfinished=workspace.unfinished(),
        waiting=Waiting(by_outcome[UNLABELLED], second, by_outcome[DISPUTED], labels is not None),
        iterations=iterations,
        champion=champion,
        champion_steps=reading.get(lambda: len(trace(store, [champion])) if champion else 0, 0),
        new_episodes=reading.get(lambda: count.new_episodes, 0),
        new_labels=reading.get(lambda: count.new_labelled_episodes, 0),
        to_record=_to_record(count.items, outcomes, champion) if labels is not None else [],
        value_model=reading.get(lambda: _value_model(workspace, store), None),
        busy=holder(workspace.root),
        disk=disk_state(workspace, listed, now),
        schedules=reading.get(lambda: schedules_state(workspace, now), None),
        removable=_removable(plan) if plan is not None else None,
        # Without the ledger nobody knows which turns went on.
        refused=refused_since(workspace.reports, (i.n for i in iterations))
        if iterations or champion
        else None,
        problems=reading.problems,
    )


def _removable(plan: GcPlan) -> int:
    """The bytes that 'recap gc' would free."""
    if len(plan.garbage) > _LOOKED_AT:
        return plan.bytes
    return sum(freed_by_removing(one.path for one in plan.garbage).values())


def _lost(workspace: Workspace, count: WorkspaceCount) -> str:
    """A sentence where labelled episodes are gone."""
    if not workspace.labels_path.exists():
        return ""
    with LabelStore(workspace.labels_path) as store:
        labelled = [name for name, label in store.current().items() if label.outcome != "exclude"]
    return episodes_lost(workspace, labelled, {item.entry.id for item in count.items})


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


def _value_model(workspace: Workspace, store: StepStore) -> ValueModel | None:
    found = read_value_models(workspace)
    if found is None:
        return None
    # Not the file's own time: a copy, as 'recap sync pull' makes one, is younger than what it names.
    trained = [one.manifest["finished"] for step in found.steps if (one := store.find(step)) is not None]
    return ValueModel(len(found.members), found.snapshot, max(map(str, trained), default=None))
