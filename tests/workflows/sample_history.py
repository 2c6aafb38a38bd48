"""A lab after some iterations, made in moments: real ledger, steps, label snapshots; drawn figures.

Policies get better and people correct less from turn to turn. Steps are named as the loop's are, take each
other as inputs in the same way, and leave the files that reports over iterations read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import Source
from pipeline.episode_file import EpisodeEntry
from pipeline.label_snapshot import Snapshot, freeze, read_snapshot
from pipeline.labels import LabelStore
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from pipeline.site_config import LabelsSection
from pipeline.workspace import Workspace
from tests.pipeline.episodes import make_info
from tests.workflows.report_samples import TASKS, attempts
from workflows.comparison import performance
from workflows.evaluation import write_attempts
from workflows.ledger import Ledger
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepResult, StepStore

PEOPLE = ("Ana", "Ben")
NEW_DEMONSTRATIONS, NEW_ROLLOUTS = 4, 6
FRAMES = 40


def write_advantages(out: Path, *, snapshot: Path, turn: int) -> None:
    """Sources, marks, thresholds and quality for the frames of a snapshot; all better with each turn."""
    rows = read_snapshot(snapshot)
    rng = np.random.default_rng(turn)
    sources = [_sources_of(row.episode_id, row.policy_checkpoint, row.length) for row in rows]
    source = np.concatenate(sources)
    marked = np.where(rng.random(len(source)) < 0.3, POSITIVE, NEGATIVE)
    unlabelled = np.repeat([row.outcome is None for row in rows], [row.length for row in rows])
    indicator = np.where(source == Source.INTERVENTION, POSITIVE, marked)
    np.savez(
        out / "advantages.npz",
        source=source.astype(np.int8),
        indicator=np.where(unlabelled, NONE, indicator).astype(np.int8),
        episode=np.repeat(np.arange(len(rows)), [row.length for row in rows]),
        episode_ids=np.array([row.episode_id for row in rows]),
    )
    thresholds = {
        task: 0.05 + 0.01 * k - 0.004 * turn for k, task in enumerate(sorted({r.task for r in rows}))
    }
    (out / "thresholds.json").write_text(json.dumps(thresholds))
    quality = {
        "auc_same_age": {"25%": 0.6 + 0.02 * turn, "50%": 0.7 + 0.02 * turn, "75%": None},
        "rank_correlation": min(0.95, 0.5 + 0.05 * turn),
        "expected_calibration_error": 0.12 / (1 + 0.3 * turn),
    }
    (out / "value_quality.json").write_text(json.dumps(quality))


def _sources_of(episode: str, policy: str | None, length: int) -> np.ndarray:
    """``rollout-<turn>-<k>``: the first of a turn are corrected, fewer and fewer of them."""
    source = np.full(length, Source.TELEOP if policy is None else Source.POLICY)
    if policy is not None:
        turn, k = (int(part) for part in episode.split("-")[1:])
        for j in range(max(0, 3 - k - turn // 2)):
            source[6 + 10 * j : 11 + 10 * j] = Source.INTERVENTION
    return source


def evaluate_sample(
    out: Path, *, checkpoint: Path, evaluation: dict[str, Any], rate: float, seed: int
) -> None:
    """Attempts that succeed at a rate."""
    write_attempts(attempts(rate, 8.0 - 4 * rate, evaluation["starts"], seed), out)


def leave_nothing(out: Path, *, turn: int, **inputs: Any) -> None:
    """A step of which only the address matters here."""


@dataclass
class SampleHistory:
    """A workspace with turns; :meth:`turn` adds one as the loop does."""

    workspace: Workspace
    base: StepResult
    entries: list[EpisodeEntry]
    champion: StepResult
    rate: float = 0.4
    turns: int = 0
    starts: int = 60
    people: tuple[str, ...] = PEOPLE
    tasks: tuple[str, ...] = TASKS
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def store(self) -> StepStore:
        """Its steps."""
        return StepStore(self.workspace.steps)

    @property
    def ledger(self) -> Ledger:
        """Its ledger."""
        return Ledger(self.workspace)

    def publish(self, step: Step) -> StepResult:
        """Computes a step here and now."""
        self.store.execute(self.store.call(step), lambda *_: None)
        found = self.store.find(step)
        assert found is not None
        return found

    def turn(self, *, promoted: bool | None = None) -> int:
        """One more iteration on new episodes; promoted unless every third, or as said. Returns its number."""
        self.turns += 1
        n = self.turns
        promoted = n % 3 != 0 if promoted is None else promoted
        snapshot = self._record(n)
        frozen = {"snapshot": ExternalInput(snapshot.path, snapshot.digest)}
        advantages = self.publish(Step("advantages", write_advantages, {"turn": n}, frozen))
        made: list[StepResult] = [advantages]
        for name in ("train_value", "score_values", "judge_values", "fine_tune_filtered", "fine_tune_recap"):
            inputs: dict[str, ExternalInput | StepResult] = {**frozen, "advantages": advantages}
            made.append(self.publish(Step(name, leave_nothing, {"turn": n}, inputs)))
        rates = {
            "base": (self.base, None, 0.4),
            "filtered BC": (made[-2], None, min(0.9, self.rate + 0.02)),
            "RECAP": (made[-1], "positive", min(0.97, self.rate + (0.08 if promoted else -0.05))),
            "RECAP, asked for negative": (made[-1], "negative", 0.3),
        }
        if self.champion.key != self.base.key:
            rates["champion"] = (self.champion, "positive", self.rate)
        found = {}
        for k, (name, (checkpoint, indicator, rate)) in enumerate(rates.items()):
            asked = {"evaluation": {"starts": self.starts, "indicator": indicator}, "rate": rate}
            made.append(
                self.publish(Step("evaluate", evaluate_sample, asked, {"checkpoint": checkpoint}, seed=k))
            )
            found[name] = asdict(performance(attempts(rate, 8.0 - 4 * rate, self.starts, k)))
        reason = self.reasons.get(n) or (
            "promoted: better than champion on the same starts (+31 successes per hour [+12, +50], p = 0.002)"
            if promoted
            else "kept champion: not better beyond chance on the same starts (p = 0.41)"
        )
        candidate = next(one for one in made if one.name == "fine_tune_recap")
        report = self.publish(Step("report", leave_nothing, {"turn": n}, {"advantages": advantages}))
        (report.path / "report.html").write_text(f"<!doctype html><title>iteration {n}</title>")
        self.ledger.record_iteration(
            n,
            candidate.key,
            {"performances": found, "promoted": promoted, "reason": reason, "values_passed": n > 1},
        )
        self.ledger.record_steps(n, made)
        if promoted:
            self.ledger.promote(candidate.name, candidate.key, n, reason)
            self.champion, self.rate = candidate, min(0.97, self.rate + 0.08)
        link = self.workspace.reports / f"iteration-{n}.html"
        link.symlink_to(os.path.relpath(report.path / "report.html", link.parent))
        return n

    def _record(self, n: int) -> Snapshot:
        """New episodes, labelled by two people in turn; one confirmed, one disputed, two not labelled."""
        champion = f"{self.champion.name}/{self.champion.key}"
        ids: list[tuple[str, str | None]] = [(f"demo-{n}-{k}", None) for k in range(NEW_DEMONSTRATIONS)]
        ids += [(f"rollout-{n}-{k}", champion) for k in range(NEW_ROLLOUTS)]
        new = [
            _entry(name, self.tasks[k % len(self.tasks)], self.people[k % len(self.people)], policy, n)
            for k, (name, policy) in enumerate(ids)
        ]
        self.entries += new
        rules = LabelsSection(double_share=1.0, gold_share=0.0)
        with LabelStore(self.workspace.labels_path, rules=rules) as store:
            store.sync((entry.id, entry.info.task) for entry in self.entries)
            for k, entry in enumerate(new[2:-2]):
                store.set(entry.id, "failure" if k % 4 == 3 else "success", self.people[k % len(self.people)])
            for entry, second in zip(new[:2], ("success", "failure"), strict=True):
                for person, outcome in zip(self.people, ("success", second), strict=True):
                    lease = store.claim_episode(entry.id, person)
                    assert lease is not None
                    store.record(lease, outcome)
            return freeze(store, self.entries, self.workspace.root / "snapshots")


def _entry(name: str, task: str, operator: str, policy: str | None, turn: int) -> EpisodeEntry:
    """An episode as a list of them has it, without a file."""
    info = make_info(
        name,
        task=task,
        operator=operator,
        policy_checkpoint=policy,
        created=f"2026-03-{1 + turn % 28:02d}T10:00:00.000Z",
    )
    return EpisodeEntry(name, Path(f"{name}.h5"), info, FRAMES, name.encode().hex().ljust(32, "0")[:32])


def make_history(root: Path, turns: int, **settings: Any) -> SampleHistory:
    """A workspace with a base policy and so many turns."""
    workspace = Workspace(root).create()
    base = Step("train_base", leave_nothing, {"turn": 0})
    store = StepStore(workspace.steps)
    store.execute(store.call(base), lambda *_: None)
    found = store.find(base)
    assert found is not None
    Ledger(workspace).set_base("train_base", found.key, "trained on every demonstration")
    history = SampleHistory(workspace, found, [], found, **settings)
    for _ in range(turns):
        history.turn()
    return history
