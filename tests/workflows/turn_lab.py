"""A workspace with the loop's real keys in which steps are published with small contents, in a second."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.label_snapshot import Snapshot
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from tests.value_model.gate_samples import sound_case
from tests.workflows.sample_lab import add_episode, frozen
from value_model.gate_report import Check, GateReport
from workflows.comparison import Attempt
from workflows.evaluation import EvaluationConfig, write_attempts
from workflows.improvement import add_champion
from workflows.ledger import Ledger
from workflows.loop_graph import LoopGraph, TurnSteps
from workflows.promotion_rounds import attempts_of, judged
from workflows.report_graph import Decision, report_step
from workflows.settings import FULL, LoopSettings, resized, settings_from_site
from workflows.step_files import CHECKPOINT
from workflows.step_recipe import Step
from workflows.step_store import StepStore
from workflows.turn_labels import freeze_labels

FAILING = GateReport((Check("values vary", "fail", 0.0, 0.1, "they are constant."),))
LABELS = (("demo-0", "success", "ana"), ("demo-1", "failure", "ana"))


def leave(out: Path, **given: Any) -> dict[str, Any]:
    """Stands for any step: a file that says so."""
    (out / "made.txt").write_text(", ".join(sorted(given)))
    return {}


def leave_model(out: Path, **given: Any) -> dict[str, Any]:
    """Stands for the training of a value model: a small one that saw nothing."""
    from value_model.checkpoint import ModelRecord, save_checkpoint
    from value_model.network import SmallNetworkConfig, build_network

    network = SmallNetworkConfig(image_size=24, patch=4, state_size=3, channels=(8, 8, 8), width=16)
    record = ModelRecord(given["fold"], given["member"], (), network, given["training"], 1, 0.5, None)
    save_checkpoint(out / CHECKPOINT, build_network(network), record)
    return {}


def leave_passed(out: Path, **given: Any) -> dict[str, Any]:
    """Stands for the gate's step, with a report that passes."""
    (out / "gate.json").write_text(sound_case().judge().to_json())
    return {}


def leave_failed(out: Path, **given: Any) -> dict[str, Any]:
    """Stands for the gate's step, with a report that fails."""
    (out / "gate.json").write_text(FAILING.to_json())
    return {}


def leave_attempts(out: Path, **given: Any) -> dict[str, Any]:
    """Stands for an evaluation: every start solved in the same time, so that no policy is better."""
    config = EvaluationConfig.from_parameters(given["evaluation"])
    starts = [config.start(i) for i in config.numbers(given["part"])]
    write_attempts([Attempt(task, seed, True, 30, 3.0) for task, seed in starts], out)
    return {}


def leave_mixed(out: Path, **given: Any) -> dict[str, Any]:
    """Stands for an evaluation: asked for "positive" a little faster than otherwise, now and then slower."""
    config = EvaluationConfig.from_parameters(given["evaluation"])
    attempts = []
    for i in config.numbers(given["part"]):
        faster = config.indicator == "positive" and i % 7 in (1, 3)
        attempts.append(Attempt(*config.start(i), True, 30, 2.5 if faster else 3.0 - (i % 5) / 5))
    write_attempts(attempts, out)
    return {}


def leave_better(out: Path, **given: Any) -> dict[str, Any]:
    """Stands for an evaluation: the candidate asked for "positive" is far faster than all others."""
    config = EvaluationConfig.from_parameters(given["evaluation"])
    fast = config.indicator == "positive" and given["checkpoint"].parts[-2:-1] == ("fine_tune_recap",)
    starts = [config.start(i) for i in config.numbers(given["part"])]
    write_attempts([Attempt(task, seed, True, 30, 1.0 if fast else 3.0) for task, seed in starts], out)
    return {}


@dataclass
class Lab:
    """A workspace, and publishing of its real steps with small contents."""

    workspace: Workspace
    published: list[Step] = field(default_factory=list)

    @property
    def settings(self) -> LoopSettings:
        """As the command has them."""
        tasks = tuple(dict.fromkeys(entry.info.task for entry in self.workspace.list_episodes()))
        site = load_site_config(self.workspace.config_path)
        return resized(settings_from_site(FULL, site), seed=0, tasks=tasks)

    @property
    def graph(self) -> LoopGraph:
        """The steps of now."""
        return LoopGraph(self.workspace, self.settings)

    @property
    def store(self) -> StepStore:
        """Its steps."""
        return StepStore(self.workspace.steps)

    def snapshot(self) -> Snapshot:
        """The labels of now, frozen where the loop freezes them."""
        return freeze_labels(self.workspace, [entry.id for entry in self.workspace.list_episodes()])

    def publish(self, *steps: Step, gate: str = "passed", evaluated: str = "attempts") -> None:
        """Makes steps, and before them those they need, exist under their keys."""
        kinds = {
            "judge_values": f"leave_{gate}",
            "evaluate": f"leave_{evaluated}",
            "train_value": "leave_model",
        }
        for step in steps:
            self.publish(*[s for s in step.upstream() if self.store.find(s) is None], gate=gate)
            kind = kinds.get(step.name, "leave")
            call = replace(self.store.call(step), function=f"tests.workflows.turn_lab:{kind}")
            self.store.execute(call, lambda *_: None)

    def base(self) -> Step:
        """A trained base policy that is champion."""
        base = self.graph.base(self.snapshot())
        self.publish(*self.graph.cache(self.snapshot()), base)
        Ledger(self.workspace).set_base(base.name, base.key, "first")
        return base

    def turn(self) -> TurnSteps:
        """The steps of a turn on the labels of now."""
        found = self.store.find(Ledger(self.workspace).champions()[0])
        assert found is not None
        return self.graph.turn(self.snapshot(), found)

    def evaluate(self, turn: TurnSteps, reference: str = "base", evaluated: str = "attempts") -> Decision:
        """All steps of the turn, and the rounds of evaluations that the decision takes."""
        while True:
            self.publish(*turn.all(), evaluated=evaluated)
            done = {step.key: found for step in turn.all() if (found := self.store.find(step)) is not None}
            verdict = judged(self.settings, attempts_of(turn, done), reference)
            if not verdict.is_open:
                return verdict.decision()
            self.graph.add_round(turn)

    def report(self, evaluated: str = "attempts") -> tuple[int, TurnSteps, Decision]:
        """A whole turn up to its report: its number, steps and decision; the ledger knows nothing of it."""
        turn, ledger, snapshot = self.turn(), Ledger(self.workspace), self.snapshot()
        base = self.store.find(ledger.champions()[0])
        assert base is not None
        number = ledger.iteration_of(turn.recap.key)
        reference = add_champion(self.graph, self.store, ledger, turn, base, number)
        decision = self.evaluate(turn, reference, evaluated)
        self.publish(report_step(self.workspace, snapshot, turn, base, number, reference, decision, ""))
        return number, turn, decision

    def finish(self, evaluated: str = "attempts") -> Decision:
        """A whole turn, its report and its entry in the ledger."""
        number, turn, decision = self.report(evaluated)
        candidate = self.store.find(turn.recap)
        assert candidate is not None
        told = {
            "rule": decision.rule,
            "looks": decision.looks,
            "guards": decision.guards,
            "round_starts": self.settings.promotion.round_starts,
        }
        summary = {"promoted": decision.promoted, "reason": decision.reason, "decision": told}
        Ledger(self.workspace).decide(number, candidate, summary, [candidate])
        return decision

    def contents(self) -> dict[str, str]:
        """Every file with what it holds, but the index of episodes."""
        return {
            str(path.relative_to(self.workspace.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.workspace.root.rglob("*")
            if path.is_file() and path.parent != self.workspace.cache
        }


def make_lab(root: Path, labels: Sequence[tuple[str, str, str]] = LABELS) -> Lab:
    """Two demonstrations of one task, one success and one failure."""
    made = Lab(Workspace(root).create())
    for number in range(2):
        add_episode(made.workspace, f"demo-{number}")
    frozen(made.workspace, *labels)
    return made
