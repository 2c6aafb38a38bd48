"""``recap advantages``: indicators from the labels of now, by the same steps as the loop's, nothing twice."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from labeling_app.scoring_runs import episode_scores, scoring_runs
from pipeline.episode import Source
from pipeline.label_snapshot import freeze
from pipeline.labels import LabelStore
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from pipeline.workspace import Workspace
from tests.workflows.judgements import newest_judgements
from tests.workflows.scoring_workspace import TASKS, make_ensemble, make_workspace
from workflows.cli import main
from workflows.step_store import StepStore
from workflows.value_check import check_values
from workflows.value_ensemble import save_ensemble
from workflows.value_gate import read_gate
from workflows.value_steps import episode_columns

# Different lengths for each (task, source): otherwise two episodes would have the same frames.
LENGTHS = [20 + i for i in range(16)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """16 labelled episodes but the last, and models whose snapshot is that of these labels."""
    workspace, entries = make_workspace(tmp_path_factory.mktemp("lab"), LENGTHS)
    with LabelStore(workspace.labels_path) as store:
        store.sync([(entry.id, entry.info.task) for entry in entries])
        for number, entry in enumerate(entries[:-1]):
            store.set(entry.id, "success" if number % 4 < 2 else "failure", "ana")
        snapshot = freeze(store, entries, workspace.root / "snapshots")
    ensemble = make_ensemble(workspace, [entry.id for entry in entries[:-1]])
    save_ensemble(workspace, type(ensemble)(**{**vars(ensemble), "snapshot": snapshot.digest}))
    return workspace


def run(lab: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["advantages", "--workspace", str(lab.root), *words]) == 0
    return capsys.readouterr().out


def newest(lab: Workspace) -> Path:
    steps = StepStore(lab.steps).published("advantages")
    return max(steps, key=lambda step: step.path.stat().st_mtime_ns).path


def test_from_labels_to_indicators_and_on_with_another_label(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(lab, capsys)
    assert "values: 16 of 16 episodes scored now" in said
    assert "10 frames ahead, the best 30% of each task's frames are positive" in said
    assert "the same as when the value models were trained" in said
    first = newest(lab)
    assert str(first) in said
    thresholds = json.loads((first / "thresholds.json").read_text())
    assert set(thresholds) == set(TASKS) and all(task in said for task in TASKS)
    columns = episode_columns(first)
    free = np.concatenate([c["indicator"][c["source"] != Source.INTERVENTION] for c in columns.values()])
    assert (free == POSITIVE).sum() / (free != NONE).sum() == pytest.approx(0.3, abs=0.05)
    corrected = np.concatenate([c["indicator"][c["source"] == Source.INTERVENTION] for c in columns.values()])
    assert len(corrected) and set(corrected) <= {POSITIVE, NONE} and NEGATIVE in free
    unlabelled = columns["episode-015"]
    assert (unlabelled["indicator"] == NONE).all() and np.isfinite(unlabelled["value"]).all()
    assert not (first / "gate.json").exists()
    judged = read_gate(newest_judgements(lab)[0].path)
    assert judged is not None and judged.words()[0] in said
    # The app sees this run, with its thresholds, values and spreads, and not the ensemble's own.
    (shown,) = scoring_runs(lab)
    assert dict(shown.thresholds) == thresholds
    assert set(episode_scores(lab, shown.name, "episode-003")) == {"value", "advantage"}

    with LabelStore(lab.labels_path) as store:
        store.set("episode-002", "success", "ana")
        store.set("episode-015", "failure", "ana")
    said = run(lab, capsys)
    assert "values: 0 of 16 episodes scored now" in said
    assert "2 with another outcome" in said and "(episode-002, episode-015)" in said
    second = episode_columns(newest(lab))
    assert newest(lab) != first
    for name in second:
        assert np.array_equal(second[name]["value"], columns[name]["value"])
    assert second["episode-002"]["return"][-1] == 0 and columns["episode-002"]["return"][-1] < 0
    assert np.isfinite(second["episode-015"]["advantage"]).all()


def run_afresh(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """So that there is one advantages step and one judgement."""
    for name in ("advantages", "judge_values"):
        shutil.rmtree(lab.steps / name, ignore_errors=True)
    run(lab, capsys)


def test_another_bound_asks_the_gate_again_and_computes_nothing_else(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run_afresh(lab, capsys)
    before = {(step.name, step.key) for step in StepStore(lab.steps).published()}
    # Values cannot spread more than the whole range: this closes the gate for certain.
    lab.config_path.write_text("[gate]\nfail_spread = 1.0\nwarn_spread = 1.0\n")
    try:
        # Before the step has run, the check asks the gate itself, by the bounds of now.
        anew: list[str] = []
        assert check_values(lab, say=anew.append) == 1
        assert "judged now:" in anew[0] and any("values vary" in line for line in anew)
        assert {(step.name, step.key) for step in StepStore(lab.steps).published()} == before
        said = run(lab, capsys)
        after = {(step.name, step.key) for step in StepStore(lab.steps).published()}
        ((name, key),) = after - before
        assert name == "judge_values"
        assert "The values cannot be trusted" in said
        failed = [line for line in anew if line.startswith("  STOP  ")]
        assert failed and all(line in said.splitlines() for line in failed)
        told: list[str] = []
        assert check_values(lab, say=told.append) == 1
        assert str(lab.steps / name / key) in told[0] and told[1:] == anew[1:]
    finally:
        lab.config_path.unlink()


def test_value_models_that_see_other_images_than_the_file_says_are_told_of(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.config_path.write_text("[defaults]\nimage_size = 128\n")
    try:
        assert main(["advantages", "--workspace", str(lab.root)]) == 0
        told = capsys.readouterr().err
    finally:
        lab.config_path.unlink()
    assert re.search(
        r"the value models see images of (\d+)×\1, not the 128×128 of recap.toml: 'recap value", told
    )


def test_options_change_what_is_looked_at_and_nothing_is_scored_for_them(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run(lab, capsys)
    said = run(lab, capsys, "--n-seconds", "0.5", "--positive-fraction", "0.5")
    assert "0.5 s ahead, the best 50% of each task's frames" in said
    half = newest(lab)
    columns = episode_columns(half)
    free = np.concatenate([c["indicator"][c["source"] != Source.INTERVENTION] for c in columns.values()])
    assert (free == POSITIVE).sum() / (free != NONE).sum() == pytest.approx(0.5, abs=0.05)
    run(lab, capsys, "--n-step", "5", "--positive-fraction", "0.5")
    in_frames = episode_columns(newest(lab))
    assert newest(lab) != half
    for name in columns:  # 0.5 s at 10 Hz
        np.testing.assert_array_equal(in_frames[name]["advantage"], columns[name]["advantage"])
    # One frame is the least at 10 Hz, and nothing is longer than the longest episode.
    assert "0.01 s ahead (1 frame = 0.1 s), the best" in run(lab, capsys, "--n-seconds", "0.01")
    assert "1 frame ahead, the best" in run(lab, capsys, "--n-step", "1")
    assert "34 frames ahead" in run(lab, capsys, "--n-step", "34")
    for words in (["--n-step", "end"], ["--n-step", "35"], ["--n-seconds", "1e6"]):
        assert "advantages: to the end of every episode, the best" in run(lab, capsys, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n-step", "5", "--n-seconds", "1"], "look ahead by one of them"),
        (["--n-step", "soon"], "give a number of frames, or 'end'"),
        (["--n-step", "0"], "positive number of frames"),
        (["--positive-fraction", "30"], "not between 0 and 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    lab: Workspace, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["advantages", "--workspace", str(lab.root), *words]) == 2
    assert message in capsys.readouterr().err


def test_without_value_models_or_labels_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, entries = make_workspace(tmp_path, [12, 13])
    assert main(["advantages", "--workspace", str(tmp_path)]) == 2
    assert "train one with 'recap value train'" in capsys.readouterr().err
    make_ensemble(workspace, [entry.id for entry in entries])
    assert main(["advantages", "--workspace", str(tmp_path)]) == 2
    assert "label some with 'recap label'" in capsys.readouterr().err
