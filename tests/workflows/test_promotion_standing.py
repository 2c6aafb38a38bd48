"""What was first decided about a candidate stands, however often and whenever killed a turn is repeated."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.workflows.sample_lab import frozen
from tests.workflows.turn_lab import Lab, make_lab
from workflows.improvement import Loop, TurnResult, improve
from workflows.ledger import Ledger
from workflows.promotion_standing import standing_decision
from workflows.report_graph import Decision
from workflows.settings import LoopSettings
from workflows.step_store import StepResult
from workflows.steps import StepRunner
from workflows.summary import turn_summary


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Two demonstrations and the base policy."""
    made = make_lab(tmp_path / "lab")
    made.base()
    return made


def turn_again(lab: Lab, settings: LoopSettings | None = None) -> TurnResult:
    """The turn as the command gives it; everything it takes is there, so that nothing may be computed."""
    with StepRunner(lab.workspace) as runner:
        loop = Loop(lab.workspace, settings or lab.settings, runner, Ledger(lab.workspace))
        base = lab.store.find(loop.ledger.champions()[0])
        assert base is not None
        found = improve(loop, [entry.id for entry in lab.workspace.list_episodes()], base)
        assert not runner.computed
    return found


def noted(lab: Lab) -> list[object]:
    """What the ledger says, but for when and where."""
    ledger = Ledger(lab.workspace)
    turns = [(i.n, i.candidate, i.summary, ledger.steps(i.n)) for i in ledger.iterations()]
    champions = [(c.iteration, c.name, c.key, c.reason, c.kind, c.since) for c in ledger.champions()]
    return [*turns, *champions]


def line(result: TurnResult) -> str:
    """What the summary says of the decision."""
    return next(said for said in turn_summary(result, Path("lab")) if said.startswith("Decision: "))


def more_starts(settings: LoopSettings) -> LoopSettings:
    """As --starts 800 has it."""
    return replace(settings, evaluation_starts=800)


def other_rule(settings: LoopSettings) -> LoopSettings:
    """As another [promotion] has it: by this rule the first round decides nothing."""
    rule = replace(settings.promotion, round_starts=20, significance=0.0001, least_chance=0.0)
    return replace(settings, promotion=rule)


def one_look(settings: LoopSettings) -> LoopSettings:
    """As the demo has it."""
    return replace(settings, promotion=replace(settings.promotion, stop_early=False))


def unchanged(settings: LoopSettings) -> LoopSettings:
    """The same again."""
    return settings


@pytest.mark.parametrize("evaluated", ["better", "attempts"])
def test_a_repeat_says_what_stands_evaluates_no_start_more_and_changes_no_byte_of_the_ledger(
    lab: Lab, evaluated: str
) -> None:
    lab.report(evaluated)
    first = turn_again(lab)
    assert first.decision.promoted is (evaluated == "better")
    before = lab.workspace.ledger_path.read_bytes()
    starts = 40 if evaluated == "better" else 120
    for change in (more_starts, other_rule, one_look, unchanged):
        again = turn_again(lab, change(lab.settings))
        assert lab.workspace.ledger_path.read_bytes() == before
        assert again.decision.promoted is first.decision.promoted
        assert again.performances == first.performances and again.report == first.report
        assert line(again).startswith("Decision: iteration 1 was decided on ")
        assert f" UTC after {starts} starts: {first.decision.reason}; that stands (for another" in line(again)


def test_killed_between_the_report_and_the_ledger_the_repeat_completes_what_the_report_told(
    lab: Lab, tmp_path: Path
) -> None:
    lab.report("better")
    shutil.copytree(lab.workspace.root, tmp_path / "other", symlinks=True)
    undisturbed = Lab(type(lab.workspace)(tmp_path / "other"))
    turn_again(undisturbed)
    # Whatever is asked for now: the report told a decision, and somebody may have read it.
    told = turn_again(lab, more_starts(other_rule(lab.settings)))
    assert told.decision.promoted and told.stands is not None
    ledger = Ledger(lab.workspace)
    assert [c.iteration for c in ledger.champions()] == [0, 1]
    assert noted(lab) == noted(undisturbed)


def test_a_report_counts_only_while_the_champion_that_it_is_about_holds(lab: Lab) -> None:
    number, turn, _ = lab.report("better")
    ledger = Ledger(lab.workspace)
    found = standing_decision(lab.workspace, ledger, number, turn.recap.key)
    assert found is not None and found.decision.promoted and (found.starts, found.round_starts) == (40, 40)
    assert standing_decision(lab.workspace, ledger, number, "another") is None
    assert standing_decision(lab.workspace, ledger, 2, turn.recap.key) is None
    (page,) = lab.store.published("report")
    manifest = page.path / "manifest.json"
    told = manifest.read_text()
    manifest.write_text(told.replace(str(page.manifest["finished"]), "2020-01-01T00:00:00+00:00"))
    assert standing_decision(lab.workspace, ledger, number, turn.recap.key) is None
    manifest.write_text("{")
    assert standing_decision(lab.workspace, ledger, number, turn.recap.key) is None


def test_a_candidate_that_was_kept_never_replaces_a_newer_champion_that_it_did_not_meet(lab: Lab) -> None:
    kept = lab.finish()
    frozen(lab.workspace, ("demo-1", "success", "ana"), ("demo-0", "failure", "ana"))
    assert not kept.promoted and lab.finish("better").promoted
    frozen(lab.workspace, ("demo-1", "failure", "ana"), ("demo-0", "success", "ana"))
    before = lab.workspace.ledger_path.read_bytes()
    again = turn_again(lab, more_starts(lab.settings))
    assert again.iteration == 1 and again.champion is not None and again.champion.iteration == 2
    assert lab.workspace.ledger_path.read_bytes() == before


def test_a_champion_that_was_rolled_back_is_not_promoted_anew(lab: Lab) -> None:
    lab.finish("better")
    ledger = Ledger(lab.workspace)
    ledger.roll_back(ledger.champions()[0], "it drops cubes")
    before = lab.workspace.ledger_path.read_bytes()
    for change in (unchanged, more_starts):
        again = turn_again(lab, change(lab.settings))
        assert "; rolled back since, the champion is the base policy; that stands (" in line(again)
        assert again.champion is not None and again.champion.iteration == 0
    assert lab.workspace.ledger_path.read_bytes() == before


def candidate(lab: Lab) -> StepResult:
    """The turn's candidate."""
    found = lab.store.find(lab.turn().recap)
    assert found is not None
    return found


def test_a_promotion_that_an_earlier_version_left_half_noted_is_finished_by_the_repeat(lab: Lab) -> None:
    _, turn, decision = lab.report("better")
    ledger = Ledger(lab.workspace)
    told = {"rule": decision.rule, "looks": decision.looks, "guards": decision.guards}
    summary = {"promoted": True, "reason": decision.reason, "decision": told}
    ledger.record_iteration(1, turn.recap.key, summary)
    assert [c.iteration for c in ledger.champions()] == [0]
    turn_again(lab)
    assert [c.iteration for c in ledger.champions()] == [0, 1]
    assert len(ledger.steps(1)) > 10


@pytest.mark.parametrize("newer", ["rollback", "iteration"])
def test_but_not_over_what_is_newer(lab: Lab, newer: str) -> None:
    _, turn, _ = lab.report("better")
    ledger, summary = Ledger(lab.workspace), {"promoted": True, "reason": "better"}
    if newer == "rollback":
        other = lab.turn().filtered
        ledger.promote(other.name, other.key, 0, "another")
    ledger.record_iteration(1, turn.recap.key, summary)
    if newer == "rollback":
        ledger.roll_back(ledger.champions()[0], "somebody decided")
    else:
        ledger.record_iteration(2, "another", {"promoted": False})
    before = ledger.champions()
    ledger.decide(1, candidate(lab), summary, [])
    assert ledger.champions() == before


def test_a_ledger_of_before_tells_the_rounds_by_its_looks_or_its_attempts(lab: Lab) -> None:
    ledger, settings = Ledger(lab.workspace), lab.settings
    looks = [{"starts": n} for n in (30, 60, 90)]
    for number, told, rounds in (
        (1, {"decision": {"looks": looks}}, [30, 60, 90]),
        (2, {"decision": {"looks": looks[-1:]}}, [40, 80, 90]),
        (3, {"performances": {"RECAP": {"attempts": 80}}}, [40, 80]),
        (4, {"decision": {"looks": looks[-1:], "round_starts": 45}}, [45, 90]),
    ):
        ledger.record_iteration(number, f"c{number}", {"promoted": False, "reason": "kept", **told})
        found = standing_decision(lab.workspace, ledger, number, f"c{number}")
        assert found is not None
        then = found.settings(settings)
        assert then.promotion.rounds(then.evaluation_starts) == rounds and not then.promotion.stop_early
    ledger.record_iteration(5, "c5", {"promoted": False})
    found = standing_decision(lab.workspace, ledger, 5, "c5")
    assert found is not None and found.settings(settings) == settings
    assert found.decision == Decision(False, "")
    # What was noted without a decision decides nothing.
    ledger.record_iteration(6, "c6", {})
    assert standing_decision(lab.workspace, ledger, 6, "c6") is None
