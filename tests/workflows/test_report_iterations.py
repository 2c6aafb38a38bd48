"""The page over all iterations: complete, traceable, cheap, and standing when something is damaged."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from pipeline.iteration_file import iterations_path, read_iterations
from pipeline.iteration_records import IterationsDocument
from tests.workflows.html_page import Page
from tests.workflows.sample_history import SampleHistory, make_history
from workflows.cli import main
from workflows.iteration_steps import snapshot_path
from workflows.report_iterations import write_iterations_report
from workflows.step_recipe import StepAddress


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SampleHistory:
    """Four iterations, the third not promoted; then a person went back to the second's policy."""
    history = make_history(tmp_path_factory.mktemp("made") / "lab", 4)
    history.ledger.roll_back(history.ledger.champions()[-2], "drops <i>cubes</i>")
    (history.workspace.reports / "values-5.html").write_text("refused")
    write(history)
    return history


@pytest.fixture
def history(tmp_path: Path) -> SampleHistory:
    """Three iterations of its own for a test that changes things."""
    found = make_history(tmp_path / "lab", 3, starts=20)
    write(found)
    return found


def write(history: SampleHistory, *, refresh: bool = False) -> Page:
    """Writes the page and reads it."""
    path = write_iterations_report(history.workspace, history.ledger, history.store, refresh=refresh)
    page = Page(path.read_text())
    assert page.errors == [] and page.open == []
    return page


def document(history: SampleHistory) -> IterationsDocument:
    """What programs read."""
    found = read_iterations(history.workspace.reports)
    assert found is not None
    return found


def test_the_page_is_one_file_that_leads_only_to_the_iterations(made: SampleHistory) -> None:
    html = (made.workspace.reports / "index.html").read_text()
    page = Page(html)
    assert "script" not in page.tags and "link" not in page.tags
    assert "http" not in html.replace("http-equiv", "") and "url(" not in html and "@import" not in html
    assert set(page.references) == {f"iteration-{n}.html" for n in (1, 2, 3, 4)} | {"values-5.html"}
    assert all((made.workspace.reports / name).exists() for name in page.references)
    assert not re.search(r"{{|{%|%}", html)


def test_it_says_first_who_drives_and_how_well(made: SampleHistory) -> None:
    text = write(made).text
    top = text[: text.index("Do policies get better?")]
    assert (
        "The policy of iteration 2 drives: it succeeds in 57 % of attempts, the base policy in 40 %." in top
    )
    assert "✕ values refused Turn 5, stopped" in top
    turn = document(made).history()[0]
    written = (made.workspace.reports / "values-5.html").stat().st_mtime
    assert datetime.fromisoformat(turn.recorded).timestamp() == int(written)
    assert turn.recorded[:16].replace("T", " ") in text
    assert "Episodes learned from 9 → 36" in top and "Corrections per rollout" in top


def test_figures_are_those_of_the_ledger_and_of_the_steps(made: SampleHistory) -> None:
    found = document(made)
    for iteration in made.ledger.iterations():
        record = found.iteration(iteration.n)
        assert record is not None and record.problems == ()
        assert (record.promoted, record.reason) == (iteration.n != 3, iteration.summary["reason"])
        for policy in record.policies:
            noted = iteration.summary["performances"][policy.name]
            assert (policy.attempts, policy.successes) == (noted["attempts"], noted["successes"])
            assert policy.success_rate.low == noted["success_rate"]["low"]
            assert policy.interventions == 0.0
        assert record.data is not None and record.data.incoming is not None
        assert sum(record.data.episodes.values()) == 9 * iteration.n
        assert sum(group.episodes for group in record.data.incoming) == 9
        assert (record.data.confirmed, record.data.disputed, record.data.new_labels) == (
            iteration.n,
            iteration.n,
            7,
        )
        assert record.values is not None and record.values.auc == pytest.approx(0.65 + 0.02 * iteration.n)
        assert record.thresholds["pick up the blue cube"] == pytest.approx(0.05 - 0.004 * iteration.n)
        assert record.positives["intervention"].positive == record.positives["intervention"].marked
    roles = {policy.role: policy for policy in found.iterations[3].policies}
    assert set(roles) == {"base", "candidate", "champion", "other"}
    assert roles["champion"].checkpoint == found.iterations[1].candidate
    assert [one.kind for one in found.champions][-1] == "rollback" and found.champions[-1].after == 4
    helped = [one.rollouts.interventions for one in found.iterations if one.rollouts is not None]
    assert helped == sorted(helped, reverse=True) and helped[0] > helped[-1]


def test_every_figure_names_published_steps(made: SampleHistory) -> None:
    text = write(made).text
    for record in document(made).iterations:
        assert {"performance", "values", "thresholds", "positives", "rollouts", "data"} <= set(record.sources)
        for address in {address for group in record.sources.values() for address in group}:
            assert made.store.find(StepAddress.parse(address)) is not None
        for group in ("performance", "values", "thresholds"):
            assert all(address in text for address in record.sources[group])
    assert text.count("Where these figures come from") == 11
    assert "recap status --lineage --of NAME/KEY" in text


def test_where_nothing_changed_nothing_is_written_and_no_step_is_read(history: SampleHistory) -> None:
    reports = history.workspace.reports
    before = {name: (reports / name).stat() for name in ("index.html", "iterations.json")}
    shutil.rmtree(history.workspace.steps / "advantages")
    write(history)
    after = {name: (reports / name).stat() for name in before}
    assert {n: (s.st_ino, s.st_mtime_ns) for n, s in before.items()} == {
        n: (s.st_ino, s.st_mtime_ns) for n, s in after.items()
    }


def test_figures_outlive_steps_that_gc_has_freed(history: SampleHistory) -> None:
    known = document(history)
    for record in known.iterations[:2]:
        for name in ("advantages", "train_value", "score_values"):
            for address in (a for a in record.sources["values"] if a.startswith(name)):
                shutil.rmtree(history.workspace.steps / address)
    history.turn()
    page = write(history, refresh=True)
    assert document(history).iterations[:3] == known.iterations and "✕" not in page.text
    # Where nobody remembers them, it is said.
    iterations_path(history.workspace.reports).unlink()
    text = write(history).text
    first = document(history).iterations[0]
    assert (
        first.thresholds == {} and first.data is not None and first.policies == known.iterations[0].policies
    )
    gone = next(a for a in known.iterations[0].sources["thresholds"])
    assert f"✕ thresholds: the step {gone} is gone" in text


def test_a_damaged_iteration_is_named_and_stops_nothing_else(history: SampleHistory) -> None:
    known = document(history)
    steps = [history.workspace.steps / one.sources["thresholds"][0] for one in known.iterations]
    (steps[0] / "advantages.npz").write_bytes(b"PK\x03\x04 no zip")
    (steps[1] / "thresholds.json").write_text("[1, 2")
    digest = json.loads((steps[2] / "manifest.json").read_text())["inputs"]["snapshot"].removeprefix(
        "external:"
    )
    snapshot_path(history.workspace, digest).write_bytes(b"PAR1")
    iterations_path(history.workspace.reports).unlink()
    text = write(history).text
    found = document(history).iterations
    assert [one.problems != () for one in found] == [True] * 3
    assert found[0].positives == {} and found[0].thresholds == known.iterations[0].thresholds
    assert found[1].thresholds == {} and found[1].positives == known.iterations[1].positives
    assert found[2].data is None and found[2].values == known.iterations[2].values
    assert "✕ frames: " in text and "✕ thresholds: " in text and "✕ episodes and labels: cannot read" in text
    assert "iteration 3" in text and "not known" in text
    manifest = steps[0] / "manifest.json"
    manifest.write_text("{")
    assert f"{manifest} is damaged" in write(history).text


def test_a_damaged_ledger_leaves_the_iterations_as_they_were(history: SampleHistory) -> None:
    known = document(history)
    history.workspace.ledger_path.write_bytes(b"no database" * 400)
    text = write(history).text
    assert document(history).iterations == known.iterations
    assert document(history).champions == known.champions
    assert "the ledger cannot be read, the iterations are as they were" in text


def test_a_damaged_history_file_is_written_anew(history: SampleHistory) -> None:
    known = document(history)
    iterations_path(history.workspace.reports).write_text("{")
    write(history)
    assert document(history) == known


def test_without_an_iteration_there_is_a_page_that_says_so(tmp_path: Path) -> None:
    text = write(make_history(tmp_path / "lab", 0)).text
    assert "No iteration yet." in text and "Nothing yet." in text


def test_one_iteration_is_enough(tmp_path: Path) -> None:
    page = write(make_history(tmp_path / "lab", 1, starts=20))
    assert (
        "The policy of iteration 1 drives" in page.text
        and page.text.count("Where these figures come from") == 11
    )


def test_what_people_typed_is_never_markup(tmp_path: Path) -> None:
    hostile = '</svg><script>alert(1)</script><img src=x onerror="alert(2)">'
    history = make_history(
        tmp_path / "lab",
        1,
        starts=20,
        people=(f"Ana {hostile}", "Ben"),
        tasks=(f"a {hostile}", f"b {hostile}"),
        reasons={1: f"because {hostile}"},
    )
    history.ledger.roll_back(history.ledger.champions()[0], f"went back {hostile}")
    page = write(history)
    assert "script" not in page.tags and "img" not in page.tags
    for word in ("a", "b", "Ana", "because", "went back"):
        assert f"{word} {hostile}" in page.text


def recap(capsys: pytest.CaptureFixture[str], history: SampleHistory, *words: str) -> str:
    assert main(["report", *words, "--workspace", str(history.workspace.root)]) == 0
    return capsys.readouterr().out


def test_the_command_lists_the_page_over_all_and_each_turns(
    made: SampleHistory, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = made.workspace.reports
    names = ["index.html", *(f"iteration-{n}.html" for n in (1, 2, 3, 4)), "values-5.html"]
    assert recap(capsys, made).splitlines() == [str(reports / name) for name in names]
    assert recap(capsys, made, "--iteration", "3").splitlines() == [str(reports / "iteration-3.html")]
    listed = json.loads(recap(capsys, made, "--json"))
    assert listed["index"] == str(reports / "index.html") and listed["problems"] == []
    assert [page["iteration"] for page in listed["pages"]] == [1, 2, 3, 4, 5]
    assert listed["pages"][-1] == {"iteration": 5, "about": "values", "path": str(reports / "values-5.html")}


def test_the_command_draws_it_anew_and_says_what_is_damaged(
    history: SampleHistory, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = history.workspace.reports
    for name in ("index.html", "iterations.json"):
        (reports / name).unlink()
    assert recap(capsys, history).splitlines()[0] == str(reports / "iteration-1.html")
    assert recap(capsys, history, "--all").splitlines()[0] == str(reports / "index.html")
    step = document(history).iterations[1].sources["thresholds"][0]
    (history.workspace.steps / step / "thresholds.json").write_text("[")
    (reports / "iterations.json").unlink()
    said = recap(capsys, history, "--all").splitlines()[0]
    assert said.startswith("problem: iteration 2: thresholds: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--iteration", "9"], "there is no report of iteration 9"),
        (["--iteration", "1", "--all"], "give one of them"),
    ],
)
def test_what_cannot_be_is_one_line(
    made: SampleHistory, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["report", *words, "--workspace", str(made.workspace.root)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_browser_gets_the_page_that_was_asked_for(
    made: SampleHistory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def browse(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr("webbrowser.open", browse)
    for words in (["--open"], ["--open", "--iteration", "2"], ["--open", "--all"]):
        recap(capsys, made, *words)
    assert [url.rpartition("/")[2] for url in opened] == ["values-5.html", "iteration-2.html", "index.html"]
