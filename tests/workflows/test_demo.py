"""The whole loop through its real entry point: finished, repeated, and killed and continued."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError
from pipeline.label_snapshot import read_snapshot
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.benchmarks.chaos_compare import differences, faults, published_twice
from tests.benchmarks.chaos_run import NODE, plan, run
from tests.benchmarks.chaos_watch import Watch, manifest_seconds
from tests.workflows.judgements import newest_judgements
from value_model.gate_report import GateReport
from workflows.cli import main
from workflows.demo_iterations import standing_after
from workflows.evaluation import EvaluationConfig
from workflows.ledger import Ledger
from workflows.local_ray import local_ray
from workflows.simulated_labelling import ANNOTATOR
from workflows.step_files import ADVANTAGES_FILE
from workflows.step_store import StepStore
from workflows.value_check import check_values
from workflows.value_ensemble import load_ensemble
from workflows.value_gate import read_gate

# Small enough for a test, with every part of the loop in it.
TINY = shlex.split("--quick --demonstrations 6 --rollouts 4 --policy-steps 8 --value-steps 15 --starts 4")


def command(*words: str) -> list[str]:
    """A ``recap`` command line in this interpreter."""
    return [sys.executable, "-m", "workflows.cli", *words]


def run_here(*words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``recap`` by its entry point, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(words)
    return status, out.getvalue(), err.getvalue()


def recap(*words: str) -> str:
    """Runs ``recap`` and returns what it printed; fails the test with its errors otherwise."""
    status, out, err = run_here(*words)
    assert status == 0, f"{words}: {err}\n{out}"
    return out


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray for what follows on the demo: a start of it and its workers takes longer than the steps."""
    with local_ray(2):
        yield


@dataclass(frozen=True)
class Finished:
    """An undisturbed demo: its workspace, what it printed, how long it took."""

    workspace: Workspace
    output: str
    seconds: float


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One undisturbed run in a process of its own, shared by all tests of this file."""
    root = tmp_path_factory.mktemp("demo") / "workspace"
    began = time.monotonic()
    words = command("demo", "--workspace", str(root), *TINY)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout}"
    return Finished(Workspace(root), done.stdout, time.monotonic() - began)


def test_it_says_what_came_of_it_and_what_to_do_next(finished: Finished) -> None:
    for name in ("base", "filtered BC", "RECAP", "RECAP, asked for negative"):
        assert re.search(rf"^{name} +\d+ % \[\d+, \d+\] +\d+ \[\d+, \d+\]$", finished.output, re.MULTILINE)
    for words in ("Decision: ", "recap label", "recap status", "peak memory of all processes"):
        assert words in finished.output
    report = finished.workspace.reports / "iteration-1.html"
    assert str(report) in finished.output
    page = report.read_text()
    assert page.count("<html") == 1 and "filtered BC" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page), "the page must be self-contained"


def test_every_kind_of_episode_was_recorded_and_labelled_by_the_annotator(finished: Finished) -> None:
    entries = finished.workspace.list_episodes()
    assert len(entries) == 6 + 6 + 4 + 4
    assert len({entry.info.operator for entry in entries}) == 4
    sources = set()
    for entry in entries:
        with EpisodeReader(entry.path) as reader:
            sources |= set(np.unique(reader.sources).tolist())
            asked = ~np.isnan(reader.policy_actions).any(axis=1)
            assert asked.all() == (entry.info.policy_checkpoint is not None)
    assert sources == {Source.TELEOP, Source.POLICY, Source.INTERVENTION}
    with LabelStore(finished.workspace.labels_path) as store:
        labels = store.current()
    assert set(labels) == {entry.id for entry in entries}
    assert {label.annotator for label in labels.values()} == {ANNOTATOR}
    assert {label.outcome for label in labels.values()} == {"success", "failure"}


def test_corrections_are_positive_and_the_others_follow_the_threshold(finished: Finished) -> None:
    (step,) = [r for r in StepStore(finished.workspace.steps).published() if r.name == "advantages"]
    with np.load(step.path / ADVANTAGES_FILE) as stored:
        corrected = stored["source"] == Source.INTERVENTION
        assert corrected.any() and (stored["indicator"][corrected] == 1).all()
        share = (stored["indicator"][~corrected] == 1).mean()
    assert share == pytest.approx(0.3, abs=0.05)


def test_the_conditioned_dataset_opens_and_holds_all_three_prompts(finished: Finished) -> None:
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset(
        "any/name", root=finished.workspace.datasets / "iteration-1", video_backend="pyav"
    )
    tasks = set(dataset.meta.tasks.index)
    for task in ("pick up the red cube", "pick up the blue cube"):
        assert {task, f"{task}. Advantage: positive", f"{task}. Advantage: negative"} <= tasks
    assert dataset.num_episodes == 20
    assert dataset[0]["observation.images.wrist"].shape == (3, 84, 84)


def test_a_second_run_computes_nothing_and_starts_no_ray(finished: Finished) -> None:
    before = step_times(finished.workspace)
    iterations = Ledger(finished.workspace).iterations()
    script = (
        "import sys; from workflows.cli import main; status = main(sys.argv[1:]); "
        "assert 'ray' not in sys.modules and 'torch' not in sys.modules; sys.exit(status)"
    )
    words = ["demo", "--workspace", str(finished.workspace.root), *TINY]
    again = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "\n0 steps computed" in again.stdout
    assert step_times(finished.workspace) == before
    assert Ledger(finished.workspace).iterations() == iterations


def test_killed_again_and_again_it_comes_to_the_same_as_undisturbed(
    finished: Finished, tmp_path: Path
) -> None:
    seed = os.getpid()
    print("seed of the kills:", seed)
    workspace = Workspace(tmp_path / "workspace")
    # Half of it, since a run that is killed for the last time in its last second might end before that. Three
    # of two drivers and two workers: some of each.
    planned = [kill for kill in plan(5, finished.seconds / 2, seed) if kill.kind != NODE][:3]
    with Watch(workspace.steps, tmp_path / "attempts.jsonl") as watch:
        words = command("demo", "--workspace", str(workspace.root), *TINY)
        told = run(words, watch, planned, None, tmp_path / "log")
    assert told.kills.total() >= 2, "hardly anything was killed"
    assert differences(finished.workspace, workspace) == []
    assert faults(finished.workspace) == faults(workspace) == []
    assert published_twice(workspace) == 0
    assert watch.attempts_s >= 0.8 * manifest_seconds(workspace.steps)


@pytest.mark.usefixtures("ray_here")
def test_a_second_iteration_rolls_out_the_champion_and_takes_in_what_it_did(
    finished: Finished, tmp_path: Path
) -> None:
    root = tmp_path / "workspace"
    subprocess.run(["cp", "-a", str(finished.workspace.root), str(root)], check=True)
    words = ("demo", "--workspace", str(root), *TINY, "--iterations", "2")
    output = recap(*words)
    assert output.index("Iteration 1: ") < output.index("Iteration 2: ")
    workspace, ledger = Workspace(root), Ledger(Workspace(root))
    assert [iteration.n for iteration in ledger.iterations()] == [1, 2]
    champion = standing_after(ledger, 1)
    new = [entry for entry in workspace.list_episodes() if entry.id.startswith("rollout2-")]
    assert len(new) == 4 + 4
    assert {entry.info.policy_checkpoint for entry in new} == {f"{champion.name}/{champion.key}"}
    scenes = [entry.info.extra["scene_seed"] for entry in workspace.list_episodes()]
    assert len(set(scenes)) == len(scenes), "a scene came up twice"
    assert len(read_snapshot_of_iteration(workspace)) == 20 + 8
    before = ledger.champions(), step_times(workspace)
    assert "\n0 steps computed" in recap(*words)
    assert (ledger.champions(), step_times(workspace)) == before


def step_times(workspace: Workspace) -> dict[Path, int]:
    """When each file of the published steps was written."""
    return {path: path.stat().st_mtime_ns for path in workspace.steps.rglob("*")}


def newest_gate(workspace: Workspace) -> GateReport:
    """The newest report of the gate's."""
    report = read_gate(newest_judgements(workspace)[0].path)
    assert report is not None
    return report


def test_the_quick_demo_shows_what_the_gate_found_and_is_not_stopped_by_it(finished: Finished) -> None:
    report = newest_gate(finished.workspace)
    assert report.words()[0] in finished.output
    assert "too small to judge values by (--quick)" in finished.output
    page = (finished.workspace.reports / "iteration-1.html").read_text()
    assert "Can these values be trusted?" in page and "too small to judge values by" in page
    ensemble = load_ensemble(finished.workspace)
    assert len(ensemble.members) == 2 and ensemble.training["steps"] == 15


@pytest.mark.usefixtures("ray_here")
def test_value_check_tells_by_its_status_and_can_judge_anew(finished: Finished, tmp_path: Path) -> None:
    said: list[str] = []
    status = check_values(finished.workspace, say=said.append)
    report = newest_gate(finished.workspace)
    assert status == (0 if report.passed else 1)
    assert said[1:] == report.words()
    root = tmp_path / "workspace"
    subprocess.run(["cp", "-a", str(finished.workspace.root), str(root)], check=True)
    for name in ("advantages", "judge_values"):
        shutil.rmtree(root / "steps" / name)
    anew: list[str] = []
    assert check_values(Workspace(root), as_json=True, say=anew.append) == status
    assert GateReport.from_json(anew[0]).checks == report.checks
    (root / "value-model.json").unlink()
    with pytest.raises(InputError, match="recap value train"):
        check_values(Workspace(root))


@pytest.mark.usefixtures("ray_here")
def test_the_next_turn_takes_in_what_came_since_and_stops_at_values_that_nobody_answers_for(
    finished: Finished, tmp_path: Path
) -> None:
    root = tmp_path / "workspace"
    subprocess.run(["cp", "-a", str(finished.workspace.root), str(root)], check=True)
    workspace, ledger = Workspace(root), Ledger(Workspace(root))
    recorded_since(workspace)
    # No value spreads more than the returns do: this bound closes the gate for certain.
    (root / "recap.toml").write_text("[gate]\nfail_spread = 1.0\nwarn_spread = 1.0\n")
    small = ("--policy-steps", "8", "--value-steps", "15", "--starts", "4")
    words = ("improve", "--workspace", str(root), *small)
    planned = recap(*words, "--quick", "--dry-run")
    assert "iteration 2, 23 episodes" in planned and "2 x train_value: " in planned
    before = (ledger.champions(), ledger.iterations())
    status, out, err = run_here(*words)
    assert status == 1, err
    assert "STOP  values vary: " in out
    assert "nothing was fine-tuned" in err and "--accept-values" in err
    page = root / "reports" / "values-2.html"
    assert str(page) in out and "Can these values be trusted?" in page.read_text()
    assert (ledger.champions(), ledger.iterations()) == before
    trained = len(StepStore(workspace.steps).published("fine_tune_recap"))
    accepted = recap(*words, "--accept-values")
    assert "a person had the loop go on all the same (--accept-values)" in accepted
    assert "Iteration 2: " in accepted
    assert "nothing to do" in recap(*words, "--accept-values", "--dry-run")
    assert len(StepStore(workspace.steps).published("fine_tune_recap")) == trained + 1
    assert [iteration.n for iteration in ledger.iterations()] == [1, 2]
    assert ledger.iterations()[-1].summary["values_passed"] is False
    assert len(read_snapshot_of_iteration(workspace)) == 23
    top = (root / "reports" / "iteration-2.html").read_text().split("How well each policy works")[0]
    assert "✕ not trusted" in top and "--accept-values" in top
    # Whoever was champion before is who the candidate has to beat.
    if ledger.champions()[-1].iteration == 1:
        assert "champion" in accepted


def recorded_since(workspace: Workspace) -> None:
    """Two demonstrations and a rollout by their commands, and their labels."""
    at = ("--workspace", str(workspace.root))
    recap("record", *at, "--task", "pick up the red cube", "--episodes", "2", "--seed", "1000")
    recap("rollout", *at, "--task", "pick up the red cube", "--episodes", "1")
    recorded = [entry.info.extra["scene_seed"] for entry in workspace.list_episodes()]
    evaluated = EvaluationConfig(("t",), 4).first_seed
    assert not set(recorded) & set(range(evaluated, evaluated + 100_000)), "trained on what is evaluated"
    assert "3 unlabelled" in recap("status", *at)
    for entry in workspace.list_episodes():
        if not entry.id.startswith(("demo-", "rollout-")) or "-supervisor-" in entry.id:
            recap("label", "set", *at, entry.id, "success", "--annotator", "test")
    assert "0 unlabelled" in recap("status", *at)


@pytest.mark.usefixtures("ray_here")
def test_the_other_commands_work_on_what_the_demo_left(finished: Finished, tmp_path: Path) -> None:
    root = str(finished.workspace.root)
    assert "champion: " in recap("status", "--workspace", root)
    assert "demo-skilled-0000" in recap("episodes", "list", "--workspace", root)
    assert "iteration-1.html" in recap("report", "--workspace", root)
    evaluated = recap("policy", "evaluate", "--workspace", root, "--starts", "2", "--ask", "nothing")
    assert "asked for nothing" in evaluated and re.search(r"^\S.*  2 +\d+ % \[", evaluated, re.MULTILINE)
    labels = tmp_path / "labels.csv"
    recap("label", "export", "--workspace", root, "--out", str(labels))
    assert len(labels.read_text().splitlines()) == 21


def read_snapshot_of_iteration(workspace: Workspace) -> list[str]:
    """The episodes of the newest frozen labels."""
    newest = max((workspace.root / "snapshots").glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    return [row.episode_id for row in read_snapshot(newest)]
