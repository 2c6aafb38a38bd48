"""``recap improve --dry-run``: what a turn would do, by the loop's real keys; what steps hold is small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from tests.workflows.sample_lab import add_episode, frozen
from tests.workflows.turn_lab import Lab, make_lab
from workflows.cli import main
from workflows.ledger import Ledger
from workflows.loop_graph import CANDIDATE
from workflows.report_graph import values_report_step


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Two demonstrations of one task, one success and one failure."""
    return make_lab(tmp_path / "lab")


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
    stands = next(line for line in out.splitlines() if line.startswith("iteration 1 was decided on "))
    assert " UTC after 120 starts: kept base: not better beyond chance" in stands
    assert stands.endswith("another candidate: new labels, or another --seed)")
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
    assert "iteration 1 was decided on " in out
    assert "to run: 1 step\n   1 x judge_values: gate.warn_auc is 0.75, was 0.7\n" in out
    assert "then: the report" in out


def test_what_is_decided_stands_whatever_the_rule_says_now(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.base()
    lab.finish()
    lab.workspace.config_path.write_text(
        "[promotion]\nround_starts = 50\nsignificance = 0.4\nleast_chance = 0.0\n"
    )
    for words in ((), ("--starts", "400")):
        out = said(lab, capsys, *words)
        assert "UTC after 120 starts: kept base: " in out and "; that stands (" in out
        assert out.splitlines()[-1] == "nothing to do" and "evaluation: round" not in out
    # Another seed makes another candidate.
    out = said(lab, capsys, "--seed", "1")
    assert out.startswith("iteration 2, ") and "that stands" not in out


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
