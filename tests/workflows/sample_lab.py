"""A small workspace as the loop leaves it, made in a second: real episodes, labels, steps, ledger, scores.

Its steps are named as the loop's are and take each other as inputs in the same way; what they hold is small.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import Source
from pipeline.label_snapshot import Snapshot, freeze
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.pipeline.episodes import make_frame, make_info, write_episode
from tests.workflows import sample_steps
from workflows.ledger import Ledger
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepResult, StepStore


def add_episode(workspace: Workspace, episode_id: str, **info: Any) -> Path:
    """Records three frames."""
    described = make_info(episode_id, **info)
    rng = np.random.default_rng(len(episode_id))
    source = Source.TELEOP if described.policy_checkpoint is None else Source.POLICY
    frames = [make_frame(i, rng, source) for i in range(3)]
    return write_episode(workspace.episode_path(described.task, episode_id), frames, described)


def frozen(workspace: Workspace, *labels: tuple[str, str, str]) -> Snapshot:
    """Labels episodes (id, outcome, annotator) and freezes all labels."""
    entries = workspace.list_episodes()
    with LabelStore(workspace.labels_path) as store:
        store.sync((entry.id, entry.info.task) for entry in entries)
        for episode_id, outcome, annotator in labels:
            store.set(episode_id, outcome, annotator)
        return freeze(store, entries, workspace.root / "snapshots")


def step(name: str, seed: int, **inputs: Step | StepResult | Snapshot | list[Step]) -> Step:
    """A step that writes a file of 1,000 bytes from these inputs."""
    given = {
        key: ExternalInput(value.path, value.digest) if isinstance(value, Snapshot) else value
        for key, value in inputs.items()
    }
    return Step(name, sample_steps.write_file, {"size": 1000}, given, seed=seed)


@dataclass(frozen=True)
class SampleTurn:
    """The steps of one iteration."""

    members: list[Step]
    advantages: Step
    dataset: Step
    view: Step
    candidate: Step
    evaluation: Step
    report: Step

    def all(self) -> list[Step]:
        """Needed ones first."""
        return [
            *self.members,
            self.advantages,
            self.dataset,
            self.view,
            self.candidate,
            self.evaluation,
            self.report,
        ]


@dataclass(frozen=True)
class SampleLab:
    """A workspace, its base policy, and the turns that were made in it."""

    workspace: Workspace
    base: Step
    turns: list[SampleTurn]

    @property
    def store(self) -> StepStore:
        """Its steps."""
        return StepStore(self.workspace.steps)

    def publish(self, *steps: Step) -> list[StepResult]:
        """Computes steps here and now."""
        for one in steps:
            self.store.execute(self.store.call(one), _silent)
        return [found for one in steps if (found := self.store.find(one)) is not None]

    def turn(self, *, promoted: bool) -> SampleTurn:
        """One more iteration on one more episode, scored, linked and noted as the loop does it."""
        n = len(self.turns) + 1
        add_episode(self.workspace, f"rollout-{n}", policy_checkpoint=f"train_base/{self.base.key}")
        snapshot = frozen(self.workspace, (f"rollout-{n}", "success" if n % 2 else "failure", "ben"))
        members = [step("train_value", 10 * n + k, snapshot=snapshot) for k in range(2)]
        advantages = step("advantages", n, snapshot=snapshot, members=members)
        dataset = Step("episode_dataset", sample_steps.link_video, {"n": n}, {"videos": self._videos()})
        view = Step("conditioned_dataset", sample_steps.link_of, inputs={"base": dataset}, seed=n)
        candidate = step("fine_tune_recap", n, snapshot=snapshot, base=self.base, advantages=advantages)
        evaluation = step("evaluate", n, checkpoint=candidate)
        report = step("report", n, evaluation=evaluation, advantages=advantages)
        made = SampleTurn(members, advantages, dataset, view, candidate, evaluation, report)
        results = self.publish(*made.all())
        self.turns.append(made)
        self._note(n, made, results, promoted)
        return made

    def _note(self, n: int, made: SampleTurn, results: list[StepResult], promoted: bool) -> None:
        reason = "promoted: faster" if promoted else "kept champion: not better beyond chance"
        ledger = Ledger(self.workspace)
        ledger.record_iteration(n, made.candidate.key, {"promoted": promoted, "reason": reason})
        ledger.record_steps(n, [found for found in results if found.name != "report"])
        if promoted:
            ledger.promote(made.candidate.name, made.candidate.key, n, reason)
        scores = self.workspace.cache / "scores" / made.advantages.key[:16] / f"rollout-{n}"
        scores.mkdir(parents=True)
        (scores / "value").write_bytes(bytes(500))
        self._link(self.workspace.datasets / f"iteration-{n}", self.store.path(made.view))
        self._link(self.workspace.reports / f"iteration-{n}.html", self.store.path(made.report) / "file.bin")

    def _link(self, link: Path, target: Path) -> None:
        link.symlink_to(os.path.relpath(target, link.parent))

    def _videos(self) -> ExternalInput:
        folder = self.workspace.cache / "videos"
        folder.mkdir(parents=True, exist_ok=True)
        video = folder / "shared.mp4"
        if not video.exists():
            video.write_bytes(bytes(4000))
        return ExternalInput(folder, "videos")


def make_lab(root: Path) -> SampleLab:
    """Two labelled demonstrations and a base policy, no turn yet."""
    workspace = Workspace(root).create()
    for number in range(2):
        add_episode(workspace, f"demo-{number}")
    snapshot = frozen(workspace, ("demo-0", "success", "ana"), ("demo-1", "failure", "ana"))
    lab = SampleLab(workspace, step("train_base", 0, snapshot=snapshot), [])
    lab.publish(lab.base)
    Ledger(workspace).set_base("train_base", lab.base.key, "trained on every demonstration")
    return lab


def _silent(done: int, total: int, message: str = "") -> None:
    """Shows nothing."""
