"""Review, adjudication and dashboard, run by Streamlit's own test harness on real episodes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.episode import Source
from pipeline.frame_cache import FrameCache
from pipeline.frame_scores import publish_scores
from pipeline.labels import LabelStore
from pipeline.site_config import LabelsSection
from pipeline.workspace import Workspace
from tests.labeling_app.pages import ONE_PAGE, clean, page_of, shown
from tests.tiny_episodes import EpisodeMaker

pytestmark = pytest.mark.usefixtures("on_loopback")


def test_review_shows_curves_thresholds_and_moments(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    cache = FrameCache(workspace.cache, 84)
    for number in range(2):
        entry = make_episode(sources=[Source.POLICY] * 8 + [Source.INTERVENTION] * 4)
        advantage = np.linspace(-0.5, 0.5, 12, dtype=np.float32) + number
        publish_scores(cache, "run1", entry.id, {"value": advantage / 4 - 0.5, "advantage": advantage})
    step = workspace.steps / "advantages" / ("run1" + "0" * 28)
    step.mkdir(parents=True)
    (step / "thresholds.json").write_text(json.dumps({entry.info.task: 0.25}))
    page = page_of(script=ONE_PAGE.format(page="review", reviewer=True))
    data = shown(page)
    assert (data["episode"], data["frame"]) == ("episode-000", 0)  # the worst moment
    assert [curve["name"] for curve in data["curves"]] == ["value", "advantage"]
    assert data["curves"][1]["threshold"] == 0.25
    assert page.slider[0].value == pytest.approx(0.25, abs=0.01)
    (table,) = page.dataframe
    assert table.value.to_dict("records") == [
        {"frames": "the policy drove", "all": 16, "positive": 8, "%": 50.0},
        {"frames": "corrected (always)", "all": 8, "positive": 8, "%": 100.0},
    ]
    clean(page.slider[0].set_value(0.9).run())
    assert page.dataframe[0].value["positive"].tolist() == [3, 8]
    clean(page.button(key="best-0").click().run())
    assert (shown(page)["episode"], shown(page)["frame"]) == ("episode-001", 11)


def test_only_reviewers_see_others_labels_and_disputes(
    workspace: Workspace, make_episode: EpisodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_episode()
    store = LabelStore(workspace.labels_path, rules=LabelsSection(double_share=1.0, gold_share=0.0))
    store.sync([(entry.id, entry.info.task)])
    for name, outcome in (("Ben", "success"), ("Cem", "failure")):
        lease = store.claim(name)
        assert lease is not None
        store.record(lease, outcome, "<b>why</b>")
    for page in ("review", "adjudicate"):
        name = {"review": "review", "adjudicate": "adjudication"}[page]
        hidden = page_of(script=ONE_PAGE.format(page=name, reviewer=False))
        assert "Ben" not in " ".join(str(element.value) for element in (*hidden.caption, *hidden.markdown))
    decided = page_of(
        script="import streamlit as st\nfrom labeling_app import adjudication_page as page\n"
        "st.button('say', key='say', on_click=page.heard)\n"
        + ONE_PAGE.format(page="adjudication", reviewer=True)
    )
    said = " ".join(element.value for element in (*decided.markdown, *decided.caption))
    assert "Ben" in said
    assert r"\<b\>why\<\/b\>" in said
    message = {"token": shown(decided)["token"], "answer": "failure", "note": "dropped"}
    monkeypatch.setattr("labeling_app.adjudication_page.last_message", lambda: message)
    clean(decided.button(key="say").click().run())
    assert decided.title[0].value == "No disputes"
    assert store.current()[entry.id].outcome == "failure"
    assert store.state(entry.id) == "adjudicated"
    # The same key again means the same look: nothing is decided twice.
    clean(decided.button(key="say").click().run())
    assert len(store.history(entry.id)) == 3
    clean(decided.button(key="undo_decision").click().run())
    assert store.state(entry.id) == "disputed"
    assert "taken back" in decided.success[0].value
    assert shown(decided)["note"] == "dropped"
    review = page_of(script=ONE_PAGE.format(page="review", reviewer=True))
    assert "in dispute" in review.markdown[0].value
    assert "taken back" in review.caption[-1].value
    assert "along the bar" in shown(review)["hint"]


def test_the_dashboard_counts(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    entries = [make_episode(sources=[Source.POLICY] * 9 + [Source.INTERVENTION] * 3) for _ in range(2)]
    store = LabelStore(workspace.labels_path)
    store.sync([(entry.id, entry.info.task) for entry in entries])
    store.set(entries[0].id, "success", "Ana")
    page = page_of(script=ONE_PAGE.format(page="dashboard", reviewer=False))
    figures = {metric.label: metric.value for metric in page.metric}
    assert figures["Labelled"] == "1 of 2"
    assert figures["Rollouts corrected"] == "100%"
    tables = [table.value.to_dict("records") for table in page.dataframe]
    assert tables[0][0]["name"] == "Ana"
    assert tables[1][0]["share of the time"] == pytest.approx(0.25)
