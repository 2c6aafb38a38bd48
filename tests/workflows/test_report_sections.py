"""The report's sections on the decision, single tasks, what came in, and the training of value models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.iteration_records import DataRecord, Incoming, RolloutRecord
from tests.workflows.html_page import Page
from tests.workflows.report_samples import TASKS, attempts, make_data
from workflows.comparison import performance
from workflows.report import ReportData, write_report
from workflows.report_came_in import CameIn
from workflows.report_decision import guards_table, looks_table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """One iteration, with four real episode files."""
    return make_data(tmp_path_factory.mktemp("episodes"), episodes=4)


LOOKS = (
    {"starts": 40, "difference": 31.25, "p": 0.0041, "bound": 0.0052, "verdict": "go on", "chance": 0.87},
    {"starts": 80, "difference": 35.5, "p": 0.0009, "bound": 0.0141, "verdict": "better", "chance": None},
)
GUARDS = ({"name": "success rate", "worse": -12.0, "bound": 5.0, "strict": True, "verdict": "passed"},)


def test_the_decision_is_shown_with_its_rule_looks_and_guard_rails(data: ReportData, tmp_path: Path) -> None:
    """By the words for what they mean; what nobody has a word for is shown as it is called."""
    guards = ({**GUARDS[0], "sworn by": "<b>Ana</b>"},)
    decided = replace(data, rule="Better, and no guard rail broken.", looks=LOOKS, guards=guards)
    page = Page(write_report(decided, tmp_path / "r.html").read_text())
    assert page.errors == [] and page.open == []
    part = page.text[page.text.index("How it was decided") : page.text.index("What the value model saw")]
    for words in (
        "Better, and no guard rail broken.",
        "After starts Difference, successes per hour p Needed: p at most",
        "40 +31.2 0.0041 0.0052 87 % go on",
        "80 +35.5 0.0009 0.0141 – better",
        "success rate −12.0 5 passed <b>Ana</b>",
        "recap status --lineage --of evaluate-recap/99aa88bb77cc66dd",
    ):
        assert words.replace("\u00a0", " ") in part.replace("\u00a0", " "), words
    assert "strict" not in part
    assert "How it was decided" not in Page(write_report(data, tmp_path / "s.html").read_text()).text


def test_each_task_is_shown_where_there_are_several(data: ReportData, tmp_path: Path) -> None:
    """So that a policy that got worse at one task is seen."""
    made = {TASKS[0]: attempts(0.9, 5.0, 40), TASKS[1]: attempts(0.2, 5.0, 40)}
    by_task = {task: {"RECAP": performance(found)} for task, found in made.items()}
    text = Page(write_report(replace(data, by_task=by_task), tmp_path / "r.html").read_text()).text
    part = text[text.index("Task by task") :].replace("\u00a0", " ")
    assert f"{TASKS[0]} RECAP 40 90 % (77 to 96)" in part and f"{TASKS[1]} RECAP 40 20 % (10 to 35)" in part
    one = replace(data, by_task={TASKS[0]: by_task[TASKS[0]]})
    assert "Task by task" not in Page(write_report(one, tmp_path / "s.html").read_text()).text


def came(*, incoming: tuple[Incoming, ...] | None, first: bool = False) -> CameIn:
    """Forty days of work, of which Ana labelled most."""
    labelled = DataRecord(
        {"rollout": 40},
        {"success": 40},
        {"Ana": 30, "Ben": 12},
        2,
        3,
        incoming,
        None if incoming is None else 7,
    )
    return CameIn(labelled, RolloutRecord(40, 1, 1, 0.03) if incoming else None, first, "labels-0123.parquet")


def test_what_came_in_is_told_by_source_operator_task_and_day(data: ReportData, tmp_path: Path) -> None:
    """And who labelled, who agrees, how often people took over."""
    days = tuple(
        Incoming("rollout", TASKS[k % 2], "<i>Ana</i>", f"2026-04-{k + 1:02d}", 1 + (k == 5))
        for k in range(20)
    )
    page = Page(write_report(replace(data, came_in=came(incoming=days)), tmp_path / "r.html").read_text())
    assert page.errors == [] and page.open == []
    part = page.text[page.text.index("What came in") : page.text.index("What the value model saw")]
    for words in (
        "21 episodes are new since the iteration before.",
        "How recorded New rollout 21",
        f"Task New {TASKS[1]} 11 {TASKS[0]} 10",
        "Operator New <i>Ana</i> 21",
        "Day New 2026-04-06 2 2026-04-01 1",
        "8 others 8",
        "7 labels are new or changed",
        "agree on 2 episodes and differ on 3",
        "People took over 1 time in 40 new rollouts",
        "Ana 30 Ben 12",
        "snapshots/labels-0123.parquet",
    ):
        assert words in part, words


def test_what_cannot_be_told_of_the_new_is_said(data: ReportData, tmp_path: Path) -> None:
    """The labels before are gone; or there was no iteration before."""
    lost = write_report(replace(data, came_in=came(incoming=None)), tmp_path / "r.html").read_text()
    assert "What is new cannot be told" in Page(lost).text and "People took over" not in Page(lost).text
    group = (Incoming("rollout", TASKS[0], "Ana", "2026-04-01", 4),)
    first = write_report(
        replace(data, came_in=came(incoming=group, first=True)), tmp_path / "s.html"
    ).read_text()
    assert "The first iteration: all 4 episodes are new." in Page(first).text
    assert "new or changed" not in Page(first).text


def test_the_loss_of_value_models_is_drawn_beside_that_of_policies(data: ReportData, tmp_path: Path) -> None:
    """Training and validation, each with its steps."""
    curves = {"training": [(10, 5.0), (20, 4.0)], "validation": [(20, 4.5)]}
    html = write_report(replace(data, value_curves=curves), tmp_path / "r.html").read_text()
    assert "training: loss 4 at step 20; validation: loss 4.5 at step 20" in html


def test_a_look_at_which_no_p_could_count_needs_none() -> None:
    looks = (
        {"starts": 10, "difference": 0.0, "p": 1.0, "bound": 0.0, "verdict": "not better beyond chance"},
    )
    found = looks_table(looks)
    assert found is not None and found.rows == (("10", "0.0", "1", "–", "not better beyond chance"),)
    # A guard rail's bound of 0 is one: none more is allowed.
    allowed = guards_table(({"name": "interventions", "worse": 0.0, "bound": 0.0},))
    assert allowed is not None and allowed.rows[0][-1] == "0"
