"""The page over iterations, run by Streamlit's own test harness on histories that the loop's writer made."""

from __future__ import annotations

import re
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from labeling_app.plain_text import plain
from pipeline.iteration_file import iterations_path
from pipeline.workspace import Workspace
from tests.labeling_app.pages import ONE_PAGE, clean, errors, page_of
from tests.workflows.sample_history import SampleHistory, make_history
from workflows.report_iterations import write_iterations_report

pytestmark = pytest.mark.usefixtures("on_loopback")


def iterations(*, reviewer: bool = True) -> AppTest:
    """The page alone, without the other pages."""
    return page_of(script=ONE_PAGE.format(page="iterations", reviewer=reviewer))


def written(workspace: Workspace, turns: int, **settings: Any) -> SampleHistory:
    """So many iterations in the app's workspace."""
    history = make_history(workspace.root, turns, starts=20, **settings)
    write_iterations_report(history.workspace, history.ledger, history.store)
    return history


def said(page: AppTest) -> str:
    """All of the page's own text."""
    found = (*page.title, *page.markdown, *page.caption, *page.warning)
    return " ".join(str(element.value) for element in found)


def tables(page: AppTest) -> list[list[dict[str, Any]]]:
    """Every table's rows."""
    return [
        [{str(name): value for name, value in row.items()} for row in table.value.to_dict("records")]
        for table in page.dataframe
    ]


def charts(page: AppTest) -> int:
    return len(page.get("arrow_vega_lite_chart") or page.get("vega_lite_chart"))


def test_without_an_iteration_it_says_what_makes_one(workspace: Workspace) -> None:
    page = iterations()
    assert page.title[0].value == "No iterations yet" and "recap improve" in said(page)
    assert "recap report --all" not in said(page)
    written(workspace, 0)
    assert "recap report --all" in said(iterations())


def test_one_iteration_is_shown_whole(workspace: Workspace) -> None:
    written(workspace, 1)
    page = iterations()
    figures = {metric.label: (metric.value, metric.delta) for metric in page.metric}
    assert figures["Champion"][0] == "iteration 1"
    assert figures["It succeeds in"] == ("50%", "+10 points over base")
    assert figures["Episodes learned from"][0] == "9"
    assert charts(page) == 6
    assert tables(page)[0][0]["decision"] == "✓ promoted"


def test_many_iterations_are_newest_first_and_any_can_be_picked(workspace: Workspace) -> None:
    history = written(workspace, 4)
    history.ledger.roll_back(history.ledger.champions()[-2], "drops cubes")
    (workspace.reports / "values-5.html").write_text("refused")
    write_iterations_report(history.workspace, history.ledger, history.store)
    page = iterations()
    rows = tables(page)[0]
    assert [row["iteration"] for row in rows] == ["5", "", "4", "3", "2", "1"]
    assert [row["decision"] for row in rows][:4] == [
        "✕ values refused",
        "↩ back to iteration 2",
        "✓ promoted",
        "kept the champion",
    ]
    assert {metric.label: metric.value for metric in page.metric}["Champion"] == "iteration 2"
    assert page.selectbox(key="iteration").value == 4
    incoming = tables(page)[1]
    assert sum(row["new episodes"] for row in incoming) == 9 and {row["by"] for row in incoming} == {
        "Ana",
        "Ben",
    }
    assert "agree on 4 episodes and differ on 4" in said(page)
    clean(page.selectbox(key="iteration").set_value(1).run())
    assert "rollout\\-1\\-0" in said(page) and "corrected 3 times" in said(page)
    steps = tables(page)[-1]
    assert {"performance", "values", "thresholds"} <= {row["figures"] for row in steps}
    assert all("/" in row["steps"] for row in steps)


def test_other_figures_of_values_are_a_click_away(workspace: Workspace) -> None:
    written(workspace, 2)
    page = iterations()
    clean(page.button_group[0].select("Thresholds").run())
    thresholds = tables(page)[0]
    assert [row["iteration"] for row in thresholds] == [2, 1]
    assert thresholds[0]["pick up the blue cube"] == pytest.approx(0.042)


def test_the_decision_is_shown_with_its_looks_and_guard_rails(workspace: Workspace) -> None:
    history = written(workspace, 1)
    (noted,) = history.ledger.iterations()
    looks = [{"starts": 40, "difference": 31.25, "p": 0.004, "verdict": "better", "new name": 1}]
    guards = [{"name": "a task", "worse": 2.5, "bound": 10.0, "strict": True, "verdict": "passed"}]
    decision = {"rule": "a rule in words", "looks": looks, "guards": guards}
    history.ledger.record_iteration(1, noted.candidate, {**noted.summary, "decision": decision})
    write_iterations_report(history.workspace, history.ledger, history.store)
    page = iterations()
    assert "a rule in words" in said(page)
    shown = tables(page)
    looked = {"After starts": 40, "Difference, successes per hour": 31.2, "p": 0.004, "Verdict": "better"}
    assert [{**looked, "new name": 1}] in shown
    assert [
        {"Guard rail": "a task", "Candidate is worse by": 2.5, "Allowed": 10, "Verdict": "passed"}
    ] in shown


def test_whole_reports_are_for_reviewers_and_never_another_file(workspace: Workspace) -> None:
    written(workspace, 1)
    assert len(iterations().get("download_button")) == 1
    hidden = iterations(reviewer=False)
    assert not hidden.get("download_button") and "for reviewers" in said(hidden)
    path = iterations_path(workspace.reports)
    path.write_text(path.read_text().replace('"iteration-1.html"', '"../labels.sqlite"'))
    (workspace.reports / "iteration-1.html").unlink()
    page = iterations()
    assert not page.get("download_button") and "not there any more" in said(page)


@pytest.mark.parametrize("text", ["{", '{"version": 99, "iterations": []}'])
def test_a_damaged_file_is_one_message_with_what_to_do(workspace: Workspace, text: str) -> None:
    written(workspace, 1)
    iterations_path(workspace.reports).write_text(text)
    page = iterations()
    assert "recap report --all" in errors(page) and not page.metric


def test_one_damaged_iteration_is_named_and_the_rest_is_shown(workspace: Workspace) -> None:
    history = written(workspace, 2)
    step = next((history.workspace.steps / "advantages").iterdir())
    (step / "thresholds.json").write_text("[")
    write_iterations_report(history.workspace, history.ledger, history.store, refresh=True)
    page = iterations()
    assert "Some figures are missing" in page.warning[0].value and "thresholds" in page.warning[0].value
    assert charts(page) == 6 and len(tables(page)[0]) == 2


def test_what_people_typed_is_text(workspace: Workspace) -> None:
    hostile = "</style><script>alert(1)</script> **bold** [link](http://evil) $x$ :red[x]"
    history = written(
        workspace, 1, people=(f"Ana {hostile}", "Ben"), tasks=(f"a {hostile}",), reasons={1: f"why {hostile}"}
    )
    history.ledger.roll_back(history.ledger.champions()[0], hostile)
    write_iterations_report(history.workspace, history.ledger, history.store)
    page = iterations()
    for element in (*page.markdown, *page.caption, *page.warning, *page.title):
        # Each sign that Markdown or HTML would act on has a backslash before it.
        assert not re.search(r"(?<!\\)[<\[$]", str(element.value)), element.value
    assert plain(f"why {hostile}") in said(page)
    html = " ".join(str(element.proto.body) for element in page.get("html"))
    assert "script" not in html and "Ana" not in html
    assert tables(page)[0][1]["why"] == f"why {hostile}"
