"""The decision about a candidate, and what a turn refuses to start with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot, SnapshotRow
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.pipeline.episodes import TASK, make_frames, make_info, write_episode
from tests.workflows.promotion_samples import BASE, RECAP, evaluations
from tests.workflows.sample_lab import make_lab
from value_model.gate_report import Check, GateReport
from workflows.comparison import Attempt, performance
from workflows.film_steps import choose_starts
from workflows.improvement import (
    Loop,
    TurnResult,
    _history,
    freeze_labels,
    known_base,
    require_both_outcomes,
)
from workflows.ledger import Champion, Ledger
from workflows.paired_comparison import paired_difference
from workflows.promotion import judge
from workflows.promotion_rule import PromotionRule
from workflows.report_data import film_caption
from workflows.report_graph import Decision
from workflows.settings import QUICK
from workflows.steps import StepRunner
from workflows.summary import turn_summary
from workflows.value_gate import GateClosed, read_gate, verdict


def attempts(successes: str, seconds: float = 4.0) -> list[Attempt]:
    """``+`` is a success, ``-`` a failure; one start each."""
    return [Attempt("t", i, mark == "+", int(10 * seconds), seconds) for i, mark in enumerate(successes)]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "--+-",
            "+++-",
            "Chosen to show the difference: 2 starts that only RECAP solved, 1 start that both solved.",
        ),
        ("----", "----", "Shown: 3 starts that neither solved."),
        (
            "+-+",
            "--+",
            "Shown: 1 start that both solved, 1 start that only base solved, 1 start that neither solved.",
        ),
    ],
)
def test_the_films_caption_says_how_its_starts_ended(before: str, after: str, said: str) -> None:
    reference, candidate = attempts(before), attempts(after)
    filmed = [attempt.start_seed for attempt in choose_starts(reference, candidate, 3)]
    assert film_caption(reference, candidate, filmed, ("base", "RECAP")) == said


def test_the_film_shows_what_changed_and_something_that_did_not() -> None:
    chosen = choose_starts(attempts("+-+--+"), attempts("+++--+"), 3)
    assert [a.start_seed for a in chosen] == [1, 0, 2]
    assert len(choose_starts(attempts("--"), attempts("--"), 3)) == 2


def row(outcome: str | None) -> SnapshotRow:
    """An episode with that label."""
    return SnapshotRow(
        "e", "t", outcome, "a", "o", None, "r", None, "2026-01-01T00:00:00+00:00", 5, False, "f"
    )


@pytest.mark.parametrize("present", [["success"], ["failure", None], [None], []])
def test_a_value_model_needs_both_outcomes(present: list[str | None]) -> None:
    with pytest.raises(InputError, match="recap label"):
        require_both_outcomes(Snapshot(Path("x"), "d", tuple(map(row, present))))


def test_an_episode_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="demo-1 was recorded but is gone"):
        freeze_labels(Workspace(tmp_path).create(), ["demo-1"])


def test_an_excluded_episode_is_left_out_of_everything(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    for name in ("e1", "e2", "e3"):
        write_episode(workspace.episode_path(TASK, name), make_frames(2), make_info(name))
    with LabelStore(workspace.labels_path) as store:
        store.sync([(name, TASK) for name in ("e1", "e2", "e3")])
        store.set("e1", "success", "ana")
        store.set("e2", "exclude", "ana")
    snapshot = freeze_labels(workspace, ["e1", "e2", "e3"])
    assert [(row.episode_id, row.outcome) for row in snapshot.rows] == [("e1", "success"), ("e3", None)]


PASSING = GateReport((Check("a", "pass", 1.0, 0.5, "fine."), Check("b", "warn", 0.6, 0.5, "look.")))
FAILING = GateReport((*PASSING.checks, Check("c", "fail", 0.1, 0.5, "bad.")))


@pytest.mark.parametrize(
    ("report", "quick", "accepted", "goes_on", "words"),
    [
        (PASSING, False, False, True, ""),
        (FAILING, False, False, False, ""),
        (FAILING, False, True, True, "--accept-values"),
        # Accepting what passes needs no mention.
        (PASSING, False, True, True, ""),
        (FAILING, True, False, True, "too small to judge"),
    ],
)
def test_only_a_failed_check_stops_and_only_a_person_or_a_quick_run_overrides_it(
    report: GateReport, quick: bool, accepted: bool, goes_on: bool, words: str
) -> None:
    found = verdict(report, quick=quick, accepted=accepted)
    assert found.goes_on is goes_on
    assert words in found.note and bool(words) == bool(found.note)
    assert found.lines()[: len(report.words())] == report.words()


def test_a_closed_gate_names_what_failed_and_where_to_look() -> None:
    closed = GateClosed(FAILING, Path("reports/values-3.html"))
    assert "(c)" in str(closed) and "reports/values-3.html" in str(closed) and "champion stays" in str(closed)


def turn_result(champion: Champion, promoted: bool = True) -> TurnResult:
    """What iteration 2 gave, whose candidate is "c2", with this champion after it."""
    attempted = {name: attempts("+-") for name in ("RECAP", "champion")}
    return TurnResult(
        iteration=2,
        gate=verdict(PASSING, quick=False, accepted=False),
        performances={name: performance(found) for name, found in attempted.items()},
        against={"champion": paired_difference(attempted["RECAP"], attempted["champion"])},
        decision=Decision(promoted, "promoted: better than champion" if promoted else "kept champion: worse"),
        reference="champion",
        report=Path("report"),
        dataset=Path("dataset"),
        checkpoint=Path("checkpoint"),
        candidate="c2",
        champion=champion,
    )


def decision_line(result: TurnResult) -> str:
    """What the summary says about who is champion."""
    return next(line for line in turn_summary(result, Path("lab")) if line.startswith("Decision: "))


def test_a_turn_repeated_after_a_rollback_says_who_is_champion(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    for key in ("b0", "c1", "c2", "c3"):
        (workspace.steps / "tune" / key).mkdir(parents=True)
    ledger = Ledger(workspace)
    ledger.set_base("tune", "b0", "first")
    for number in (1, 2):
        ledger.record_iteration(number, f"c{number}", {})
        ledger.promote("tune", f"c{number}", number, "better")

    def said() -> str:
        # As a repeated turn does: promoting what was promoted in that iteration changes nothing.
        ledger.promote("tune", "c2", 2, "better")
        champion = ledger.champion()
        assert champion is not None
        return decision_line(turn_result(champion))

    assert said() == "Decision: promoted: better than champion."
    first = ledger.champions()[1]
    ledger.roll_back(first, "it drops cubes")
    assert said() == (
        "Decision: promoted: better than champion; rolled back since, the champion is that of iteration 1."
    )
    ledger.roll_back(ledger.champions()[0], "worse still")
    assert said().endswith("; rolled back since, the champion is the base policy.")
    ledger.record_iteration(3, "c3", {})
    ledger.promote("tune", "c3", 3, "better")
    assert said().endswith("; replaced since, the champion is that of iteration 3.")
    ledger.roll_back(ledger.champions()[2], "iteration 2 after all")
    assert said() == "Decision: promoted: better than champion."
    assert decision_line(turn_result(first, promoted=False)) == "Decision: kept champion: worse."


def test_the_summary_tells_every_look_and_every_guard_rail_of_the_decision() -> None:
    champion = Champion("tune", "c2", Path("x"), 2, "better", "2026", "promotion", 2)
    candidate, reference = evaluations(RECAP, BASE, 200, np.random.default_rng(4))
    # The first rounds tell nothing apart.
    candidate[:80] = reference[:80]
    decision = judge(candidate, reference, "champion", 200, PromotionRule(stop_early=True)).decision()
    said = turn_summary(replace(turn_result(champion), decision=decision), Path("lab"))
    looks = [line for line in said if line.startswith("  after ")]
    assert len(looks) == len(decision.looks) > 2
    assert looks[0] == (
        "  after 40 starts: +0 per hour, p = 1.000 (none would count): not clear yet: more starts"
    )
    assert looks[-1].endswith(str(decision.looks[-1]["verdict"]))
    (rails,) = [line for line in said if line.startswith("Guard rails: ")]
    assert rails.count("passed") == 4 and "pick up the red cube passed" in rails
    assert rails.endswith("interventions passed (no difference).")


def test_a_page_that_cannot_be_written_does_not_lose_the_turn(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    lab.workspace.reports.rmdir()
    lab.workspace.reports.write_text("somebody's file")
    loop = Loop(lab.workspace, QUICK, StepRunner(lab.workspace), Ledger(lab.workspace))
    page, fault = _history(loop)
    assert page is None and str(lab.workspace.reports) in fault
    champion = Champion("tune", "c2", Path("x"), 2, "better", "2026", "promotion", 2)
    said = turn_summary(replace(turn_result(champion), history_fault=fault), Path("lab"))
    assert any(line.startswith("The page over all iterations could not be written: ") for line in said)
    lab.workspace.reports.unlink()
    page, fault = _history(loop)
    assert page is not None and page.is_file() and not fault
    assert f"All iterations:      {page}" in turn_summary(
        replace(turn_result(champion), history=page), Path("lab")
    )


def test_a_step_without_a_judgement_has_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_gate(tmp_path) is None
    (tmp_path / "gate.json").write_text(FAILING.to_json())
    assert read_gate(tmp_path) == FAILING
    (tmp_path / "gate.json").write_text("{}")
    with pytest.raises(InputError, match=r"gate\.json: this is not a report"):
        read_gate(tmp_path)


def test_a_damaged_base_policy_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "lab")
    ledger = Ledger(lab.workspace)
    base = known_base(lab.store, ledger)
    assert base is not None and base.key == lab.base.key
    (base.path / "file.bin").write_bytes(b"other")
    with pytest.raises(InputError, match=r"file\.bin is gone or was changed: put it back from a copy"):
        known_base(lab.store, ledger)
    (base.path / "file.bin").unlink()
    with pytest.raises(InputError, match=r"file\.bin is gone or was changed"):
        known_base(lab.store, ledger)
