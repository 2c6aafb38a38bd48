"""``recap improve --dry-run``: what a turn would do, by the loop's real keys; what steps hold is small."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.label_snapshot import Snapshot
from pipeline.site_config import load_site_config
from pipeline.workspace import Workspace
from tests.value_model.gate_samples import sound_case
from tests.workflows.sample_lab import add_episode, frozen
from value_model.gate_report import Check, GateReport
from workflows.cli import main
from workflows.comparison import Attempt
from workflows.evaluation import EvaluationConfig, write_attempts
from workflows.improvement import add_champion
from workflows.ledger import Ledger
from workflows.loop_graph import CANDIDATE, LoopGraph, TurnSteps
from workflows.promotion_rounds import attempts_of, judged
from workflows.report_graph import Decision, report_step, values_report_step
from workflows.settings import FULL, LoopSettings, resized, settings_from_site
from workflows.step_recipe import Step
from workflows.step_store import StepStore
from workflows.turn_labels import freeze_labels

FAILING = GateReport((Check("values vary", "fail", 0.0, 0.1, "they are constant."),))
LABELS = (("demo-0", "success", "ana"), ("demo-1", "failure", "ana"))


def leave(out: Path, **given: Any) -> dict[str, Any]:
    """Stands for any step: a file that says so."""
    (out / "made.txt").write_text(", ".join(sorted(given)))
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
        kinds = {"judge_values": f"leave_{gate}", "evaluate": f"leave_{evaluated}"}
        for step in steps:
            self.publish(*[s for s in step.upstream() if self.store.find(s) is None], gate=gate)
            kind = kinds.get(step.name, "leave")
            call = replace(self.store.call(step), function=f"tests.workflows.test_dry_run:{kind}")
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

    def evaluate(self, turn: TurnSteps, reference: str = "base") -> Decision:
        """All steps of the turn, and the rounds of evaluations that the decision takes."""
        while True:
            self.publish(*turn.all())
            done = {step.key: found for step in turn.all() if (found := self.store.find(step)) is not None}
            verdict = judged(self.settings, attempts_of(turn, done), reference)
            if not verdict.is_open:
                return verdict.decision()
            self.graph.add_round(turn)

    def finish(self) -> None:
        """A whole turn, its report and its entry in the ledger."""
        turn, ledger, snapshot = self.turn(), Ledger(self.workspace), self.snapshot()
        base = self.store.find(ledger.champions()[0])
        assert base is not None
        number = ledger.iteration_of(turn.recap.key)
        reference = add_champion(self.graph, self.store, ledger, turn, base, number)
        decision = self.evaluate(turn, reference)
        self.publish(report_step(self.workspace, snapshot, turn, base, number, reference, decision, ""))
        ledger.record_iteration(number, turn.recap.key, {"promoted": False, "reason": decision.reason})

    def contents(self) -> dict[str, str]:
        """Every file with what it holds, but the index of episodes."""
        return {
            str(path.relative_to(self.workspace.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.workspace.root.rglob("*")
            if path.is_file() and path.parent != self.workspace.cache
        }


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Two demonstrations of one task, one success and one failure."""
    made = Lab(Workspace(tmp_path / "lab").create())
    for number in range(2):
        add_episode(made.workspace, f"demo-{number}")
    frozen(made.workspace, *LABELS)
    return made


def said(lab: Lab, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command prints; it must not fail, and must change nothing."""
    before = lab.contents()
    assert main(["improve", "--workspace", str(lab.workspace.root), "--dry-run", *words]) == 0
    assert lab.contents() == before
    return capsys.readouterr().out


def test_before_there_is_a_base_policy_everything_follows_from_it(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(lab, capsys)
    assert "iteration 1, 2 episodes; to be beaten: base" in out and "done:" not in out
    assert "   1 x train_base: no step train_base was published before\n" in out
    assert "   4 x train_value: no step train_value was published before\n" in out
    assert "   1 x score_values: follows train_value\n" in out
    assert "   1 x judge_values: follows advantages\n" in out
    assert "   1 x fine_tune_recap: follows train_base, advantages\n" in out
    assert "   2 x evaluate: follows train_base\n" in out
    assert (
        "evaluation: round 1 of at most 5, 40 starts of each policy; further rounds, up to 200 starts, only "
        "while the decision is open\n" in out
    )
    assert out.endswith("it stops after judge_values\n") and "then: the report" in out
    assert not lab.workspace.steps.exists() or not list(lab.workspace.steps.iterdir())


def test_a_finished_turn_leaves_nothing_to_do_and_new_labels_say_what_follows(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.base()
    lab.finish()
    out = said(lab, capsys)
    assert out.splitlines()[-1] == "nothing to do" and "4 train_value" in out and "1 report" in out
    for number in range(3):
        add_episode(lab.workspace, f"rollout-{number}", policy_checkpoint="train_base/x")
    frozen(lab.workspace, ("demo-1", "success", "ana"), ("rollout-0", "failure", "ana"))
    out = said(lab, capsys)
    assert "iteration 2, 5 episodes" in out
    assert "   4 x train_value: labels changed (3 new episodes, 1 other outcome)\n" in out
    assert "   2 x cache_frames: labels changed (3 new episodes, 1 other outcome)\n" in out
    assert "   1 x fine_tune_recap: follows advantages\n" in out
    # The base policy stays, and so does what was measured of it.
    assert "done: 2 steps (2 evaluate)" in out  # of the first round; the others may follow


def test_another_bound_asks_only_the_gate_and_the_report_anew(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.base()
    lab.finish()
    lab.workspace.config_path.write_text("[gate]\nwarn_auc = 0.75\n")
    out = said(lab, capsys)
    assert "iteration 1," in out
    assert "to run: 1 step\n   1 x judge_values: gate.warn_auc is 0.75, was 0.7\n" in out
    assert "then: the report" in out


def test_a_closed_gate_is_told_and_what_would_follow_if_a_person_accepts_the_values(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    base, turn = lab.base(), lab.turn()
    lab.publish(*turn.cache, turn.gate, gate="failed")
    out = said(lab, capsys)
    assert "1 x values_report: " in out and "fine_tune" not in out
    assert "the gate is closed (values vary): nothing is fine-tuned" in out
    lab.publish(values_report_step(lab.workspace, lab.snapshot(), turn, 1))
    assert "nothing to do\nthe gate is closed" in said(lab, capsys)
    out = said(lab, capsys, "--accept-values")
    assert "   1 x fine_tune_recap: no step fine_tune_recap was published before\n" in out
    assert "the gate is closed" not in out and base.name not in out


def test_the_next_round_is_planned_where_the_rounds_before_it_leave_it_open(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.base()
    turn = lab.turn()
    lab.publish(*turn.all(), evaluated="mixed")
    out = said(lab, capsys)
    assert "to run: 8 steps\n   8 x evaluate: round of starts 41 to 80\n" in out
    assert "evaluation: round 2 of at most 5, 40 starts of each policy" in out
    lab.publish(*lab.graph.add_round(turn), evaluated="mixed")
    assert "evaluation: round 3 of at most 5" in said(lab, capsys)
    # Asked to look once, it runs them all.
    lab.workspace.config_path.write_text("[promotion]\nstop_early = false\n")
    out = said(lab, capsys)
    assert "to run: 24 steps\n   8 x evaluate: round of starts 81 to 120\n" in out
    assert "evaluation: round" not in out
    lab.workspace.config_path.write_text("[promotion]\nstarts = 80\n")
    assert "1 x film: " in said(lab, capsys)


def test_what_is_computed_but_not_noted_is_told(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.base()
    assert "given up after 120 of 200 starts" in lab.evaluate(lab.turn()).reason
    out = said(lab, capsys)
    assert "to run: 2 steps" in out and "1 x film: " in out and "1 x report: follows film\n" in out
    assert out.endswith("then: the turn is noted in runs.sqlite\n")


def test_the_champion_would_be_evaluated_too(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.base()
    lab.finish()
    turn = lab.turn()
    Ledger(lab.workspace).promote(turn.recap.name, turn.recap.key, 1, "better")
    frozen(lab.workspace, ("demo-1", "success", "ana"), ("demo-0", "failure", "ana"))
    out = said(lab, capsys)
    assert "iteration 2, 2 episodes; to be beaten: champion" in out
    # Its own evaluation of then, as the candidate, is on the same starts.
    assert CANDIDATE in turn.evaluations and "done: 4 steps (4 evaluate)" in out


@pytest.mark.parametrize("labels", [None, (("demo-0", "success", "ana"), ("demo-1", "success", "ana"))])
def test_what_a_turn_would_refuse_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: tuple[tuple[str, str, str], ...] | None
) -> None:
    lab = Lab(Workspace(tmp_path / "lab").create())
    for number in range(2):
        add_episode(lab.workspace, f"demo-{number}")
    if labels is not None:
        frozen(lab.workspace, *labels)
    before = lab.contents()
    assert main(["improve", "--workspace", str(lab.workspace.root), "--dry-run"]) == 2
    assert "no episode is labelled" in capsys.readouterr().err
    assert lab.contents() == before


def test_it_starts_no_ray_and_loads_no_torch(lab: Lab) -> None:
    script = (
        "import sys; from workflows.cli import main; status = main(sys.argv[1:]); "
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules; sys.exit(status)"
    )
    words = [sys.executable, "-c", script, "improve", "--workspace", str(lab.workspace.root), "--dry-run"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "to run: " in done.stdout
