"""The report's page: complete, self-contained, valid, escaped, and honest about what is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.prompts import NONE
from tests.workflows.html_page import Page
from tests.workflows.report_samples import clips, make_data
from value_model.advantages import Reason
from workflows.report import ReportData, ValuesData, choose_episodes, write_report, write_values_page
from workflows.report_films import comparison_gif


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """One iteration, with eight real episode files."""
    return make_data(tmp_path_factory.mktemp("episodes"))


@pytest.fixture(scope="module")
def html(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of that iteration."""
    return write_report(data, tmp_path_factory.mktemp("page") / "reports" / "iteration-1.html").read_text()


def test_page_is_balanced_and_refers_to_nothing_outside_itself(html: str) -> None:
    """Tags close in order, and nothing is fetched from anywhere."""
    page = Page(html)
    assert page.errors == [] and page.open == []
    assert page.references and all(r.startswith("data:") for r in page.references)
    assert "http" not in html.replace("http-equiv", "") and "url(" not in html and "@import" not in html
    assert "script" not in page.tags
    assert 100_000 < len(html) < 4_000_000


def test_first_screen_says_what_improved_and_what_was_decided(html: str, data: ReportData) -> None:
    """The change, its interval, both rivals and the decision stand above the first figure."""
    text = Page(html).text
    top = text[: text.index("How well each policy works")]
    assert "RECAP gets" in top and "as much done as base" in top
    assert "144 of 200 attempts succeeded; with base, 84 of 200." in top
    assert "42 % → 72 %" in top and "+30 points" in top
    assert "against filtered BC" in top
    assert "✓ RECAP promoted" in top and data.decision in top


def test_every_part_is_there(html: str) -> None:
    """All figures, tables and totals that the page promises."""
    page = Page(html)
    # performance, three episodes, six on the values, advantages, training
    assert sum(r.startswith("data:image/svg") for r in page.references) == 12
    for words in (
        "RECAP, asked for negative",
        "correction by a person",
        "positive: a person's correction",
        "A success",
        "the policy drove",
        "An attempt that a person corrected",
        "steps/evaluate-recap/99aa88bb77cc66dd",
        "12 min 22 s",
        "3.4 GiB",
        "0.93",
        "policy, corrected by a person",
        "7 episodes have an outcome and 1 has none",
        "Can these values be trusted?",
        "! look Operator Outcomes differ by operator",
        "✓ ok Calibration In 'pick up the red cube' a value is",
    ):
        assert words in page.text, words


def test_values_that_a_person_accepted_are_announced_on_the_first_screen(
    data: ReportData, tmp_path: Path
) -> None:
    """A failed gate is not hidden below the figures; where all is well the first screen is as it was."""
    judged = data.gate
    assert judged is not None
    failed = replace(judged.checks[0], verdict="fail", sentence="they are constant.")
    gate = replace(judged, checks=(failed, *judged.checks[1:]))
    accepted = replace(data, gate=gate, values_note="A person went on all the same.")
    text = Page(write_report(accepted, tmp_path / "r.html").read_text()).text
    top = text[: text.index("How well each policy works")]
    assert "✕ not trusted A person went on all the same." in top
    assert "The values cannot be trusted: 1 check failed." in text and "They are constant." in text


def test_steps_from_before_the_gate_still_make_a_page(data: ReportData, tmp_path: Path) -> None:
    """No gate.json, and a quality file that lacks the newer measures."""
    new = ("expected_calibration_error", "adaptive_calibration_error", "rank_correlation", "baselines")
    old = {name: found for name, found in data.value_quality.items() if name not in new}
    page = Page(write_report(replace(data, gate=None, value_quality=old), tmp_path / "r.html").read_text())
    assert page.errors == [] and "from before there was a gate" in page.text
    # Without the gate's evidence: no AUC over time, no alarms.
    assert sum(r.startswith("data:image/svg") for r in page.references) == 9


def test_values_that_did_not_pass_have_a_page_of_their_own(data: ReportData, tmp_path: Path) -> None:
    """The same section, self-contained, with what the model saw; no policy on it."""
    note = "Nothing was fine-tuned."
    shared = {name: getattr(data, name) for name in ("iteration", "title", "robot", "tasks", "frames")}
    values = ValuesData(
        **shared,
        note=note,
        value_quality=data.value_quality,
        episodes=data.episodes,
        origins=data.origins,
        gate=data.gate,
    )
    page = Page(write_values_page(values, tmp_path / "values-1.html").read_text())
    assert page.errors == [] and page.open == [] and all(r.startswith("data:") for r in page.references)
    assert note in page.text and "Can these values be trusted?" in page.text
    assert "filtered BC" not in page.text
    assert sum(r.startswith("data:image/svg") for r in page.references) == 9


def test_the_same_data_make_the_same_bytes(html: str, data: ReportData, tmp_path: Path) -> None:
    """No clock and no random id in the page, and no temporary file left beside it."""
    out = write_report(data, tmp_path / "again.html")
    assert out.read_text() == html
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]


def test_names_that_look_like_markup_or_formulas_stay_text(tmp_path: Path) -> None:
    """Operators may be called anything."""
    name = '<b>x</b>"$\\frac$ & \u5c71'
    data = make_data(tmp_path, episodes=4, operator=name)
    hostile = replace(data, decision=f"{name} agreed", title="</title><script>alert(1)</script>")
    page = Page(write_report(hostile, tmp_path / "r.html").read_text())
    assert page.errors == [] and page.open == []
    assert "script" not in page.tags
    assert f"{name} agreed" in page.text and f"operator {name}" in page.text


def test_what_is_missing_is_said_not_drawn(data: ReportData, tmp_path: Path) -> None:
    """Only teleoperation without a label: no advantage, no chosen episode, no test."""
    frames = data.frames[data.frames["source"] == Source.TELEOP].assign(
        outcome=None,
        advantage=np.nan,
        return_=np.nan,
        indicator=np.int8(NONE),
        reason=np.int8(Reason.NO_OUTCOME),
    )
    bare = replace(
        data,
        frames=frames,
        differences={},
        thresholds={},
        value_quality={},
        gate=None,
        training_curves={},
        origins={},
        steps=[],
        peak_memory_gib=None,
        wall_seconds=None,
        annotators={},
    )
    page = Page(write_report(bare, tmp_path / "r.html").read_text())
    assert page.errors == [] and page.open == []
    assert "No frame has an advantage" in page.text
    assert page.text.count("There is none in this data.") == 3
    assert "No clear difference yet" in page.text


def test_a_recording_that_is_gone_leaves_its_values(data: ReportData, tmp_path: Path) -> None:
    """Values are shown even when the camera frames cannot be."""
    page = Page(write_report(replace(data, episodes=[]), tmp_path / "r.html").read_text())
    assert page.text.count("its recording is not at hand") == 3


def test_film_is_inlined_and_a_missing_one_is_an_error(data: ReportData, tmp_path: Path) -> None:
    """The GIF is in the page; a film that was promised and is not there stops the report."""
    film = comparison_gif(*clips(1), ("base", "RECAP"), tmp_path / "film.gif", tile=48)
    html = write_report(replace(data, film=film), tmp_path / "r.html").read_text()
    assert "data:image/gif;base64," in html
    with pytest.raises(InputError, match="film"):
        write_report(replace(data, film=tmp_path / "none.gif"), tmp_path / "s.html")
    assert not (tmp_path / "s.html").exists()


def test_unusable_data_is_refused(data: ReportData) -> None:
    """A comparison with what was not evaluated, and frames without a column."""
    with pytest.raises(InputError, match="'champion'"):
        replace(data, reference="champion")
    with pytest.raises(InputError, match="indicator"):
        replace(data, frames=data.frames.drop(columns="indicator"))


def test_page_has_no_leftover_template_syntax(html: str) -> None:
    """Every expression was rendered."""
    assert not re.search(r"{{|{%|%}|}}(?!\s*$)", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))


def test_chosen_episodes_are_of_their_kind_typical_and_independent_of_order(data: ReportData) -> None:
    """Each kind is what its name says, whatever the order of the rows."""
    chosen = choose_episodes(data.frames)
    assert set(chosen) == {"success", "failure", "corrected"}
    of = {kind: data.frames[data.frames["episode_id"] == e] for kind, e in chosen.items()}
    assert (of["corrected"]["source"] == Source.INTERVENTION).any()
    assert (of["success"]["outcome"] == "success").all() and (of["success"]["source"] == Source.POLICY).all()
    assert (of["failure"]["outcome"] == "failure").all()
    assert not (of["failure"]["source"] == Source.INTERVENTION).any()
    assert choose_episodes(data.frames.sample(frac=1, random_state=1)) == chosen
