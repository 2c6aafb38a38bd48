"""``recap value check``: a stored report is repeated only while all that it was made from is the same.

And what ``recap value score`` refuses before it starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.workflows.judgements import newest_judgements
from tests.workflows.scoring_workspace import make_ensemble, make_workspace
from workflows.cli import main
from workflows.value_ensemble import ensemble_path, load_ensemble
from workflows.value_requirements import penalty_warning

LENGTHS = [12 + i for i in range(12)]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """12 labelled episodes whose values 'recap advantages' has judged: only to be read."""
    workspace, entries = make_workspace(tmp_path_factory.mktemp("judged"), LENGTHS)
    with LabelStore(workspace.labels_path) as store:
        store.sync([(entry.id, entry.info.task) for entry in entries])
        for number, entry in enumerate(entries):
            store.set(entry.id, "success" if number % 4 < 2 else "failure", "ana")
    make_ensemble(workspace, [entry.id for entry in entries])
    assert main(["advantages", "--workspace", str(workspace.root)]) == 0
    return workspace


@pytest.fixture
def lab(judged: Workspace, tmp_path: Path) -> Workspace:
    """A copy of it, to change."""
    shutil.copytree(judged.root, tmp_path / "lab", symlinks=True)
    return Workspace(tmp_path / "lab")


def check(lab: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    return recap(capsys, "value", "check", "--workspace", lab.root, *words)


def recap(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_stored_report_is_repeated_and_says_what_it_belongs_to(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (stored,) = newest_judgements(lab)
    status, out, _ = check(lab, capsys)
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == f"The gate's report in {stored.path}:"
    assert lines[1].startswith("  10 frames ahead, the best 30% positive, 12 episodes (labels ")
    assert "models trained 20" in lines[1]
    status, out, _ = check(lab, capsys, "--json")
    document = json.loads(out)
    assert status == 1 and document["passed"] is False and document["checks"]
    about = document["judged"]
    assert (about["n_step"], about["n_seconds"], about["positive_fraction"]) == (10, None, 0.3)
    assert about["episodes"] == 12 and about["labels"] == stored.manifest["inputs"]["snapshot"][9:]
    assert about["trained_on_labels"] == "d" * 64 and about["trained"].endswith("+00:00")


def test_judging_anew_says_the_same(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    _, stored, _ = check(lab, capsys)
    for name, origin in (("judge_values", "The values in "), ("advantages", "The workspace's value models")):
        shutil.rmtree(lab.steps / name)
        _, anew, _ = check(lab, capsys)
        assert anew.startswith(origin) and "judged now:" in anew
        assert anew.splitlines()[1:] == stored.splitlines()[1:]


def set_toml(text: str) -> Callable[[Workspace], None]:
    def change(lab: Workspace) -> None:
        lab.config_path.write_text(text)

    return change


def relabel(lab: Workspace) -> None:
    with LabelStore(lab.labels_path) as store:
        store.set("episode-002", "success", "ana")


def delete_episode(lab: Workspace) -> None:
    lab.find("episode-003").path.unlink()


def other_models(lab: Workspace) -> None:
    make_ensemble(lab, [f"episode-{number:03d}" for number in range(12)], seed=3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_toml("[gate]\nfail_spread = 1.0\nwarn_spread = 1.0\n"), "STOP  values vary"),
        (set_toml("[value]\nn_seconds = 0.5\n"), "0.5 s ahead"),
        (set_toml("[value]\npositive_fraction = 0.5\n"), "the best 50% positive"),
        (relabel, "12 episodes"),
        (delete_episode, "11 episodes"),
        (other_models, "12 episodes"),
    ],
)
def test_what_was_changed_is_judged_now(
    lab: Workspace, capsys: pytest.CaptureFixture[str], change: Callable[[Workspace], None], said: str
) -> None:
    steps = sorted(lab.steps.rglob("*"))
    change(lab)
    status, out, _ = check(lab, capsys)
    assert status == 1 and "judged now:" in out.splitlines()[0] and said in out
    assert sorted(lab.steps.rglob("*")) == steps


def delete_ensemble(lab: Workspace) -> None:
    ensemble_path(lab).unlink()


def overwrite_weights(lab: Workspace) -> None:
    weights = load_ensemble(lab).members[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"damaged!")


def unlabel(lab: Workspace) -> None:
    lab.labels_path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_toml("[gate\n"), "recap.toml"),
        (set_toml("[gates]\nfail_spread = 0.2\n"), "gates"),
        (set_toml("[gate]\nfail_spred = 0.2\n"), "fail_spred"),
        (set_toml("[value]\nn_stp = 3\n"), "n_stp"),
        (delete_ensemble, "no value model yet: train one with 'recap value train'"),
        (overwrite_weights, "model.safetensors is damaged"),
        (unlabel, "labels.sqlite is missing or empty"),
    ],
)
def test_what_cannot_be_judged_is_an_error(
    lab: Workspace, capsys: pytest.CaptureFixture[str], change: Callable[[Workspace], None], message: str
) -> None:
    change(lab)
    status, out, err = check(lab, capsys)
    assert (status, out) == (2, "") and message in err and len(err.splitlines()) == 1
    status, out, err = check(lab, capsys, "--json")
    assert status == 2 and message in json.loads(out)["error"] and len(err.splitlines()) == 1


def test_what_is_not_there_is_refused_before_anything_is_scored(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("value", "score", "--workspace", lab.root, "--episodes", "episode-002", "--episodes")
    before = sorted(lab.cache.rglob("*"))
    status, out, err = recap(capsys, *words, "nope")
    assert (status, out) == (2, "") and len(err.splitlines()) == 1
    assert "there is no episode 'nope' in" in err
    status, _, err = recap(capsys, *words, "nope", "--episodes", "neither")
    assert status == 2 and "there are no episodes 'nope', 'neither' in" in err
    weights = load_ensemble(lab).members[0] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"damaged!")
    status, out, err = recap(capsys, *words, "episode-001")
    assert (status, out) == (2, "") and len(err.splitlines()) == 1
    assert f"{weights} is damaged" in err and f"({weights.parent}) and run 'recap value train'" in err
    assert sorted(lab.cache.rglob("*")) == before


def test_a_penalty_that_does_not_put_failures_last_is_warned_of() -> None:
    assert penalty_warning(1.0) is None and penalty_warning({"a": 1.0, "b": 2.0}) is None
    for low in (0.5, {"a": 1.0, "b": 0.5}):
        assert "failure_penalty is 0.5, below 1" in (penalty_warning(low) or "")


def test_advantages_warn_of_the_penalty_that_the_models_have(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(ensemble_path(lab).read_text())
    document["training"]["failure_penalty"] = 0.5
    ensemble_path(lab).write_text(json.dumps(document))
    status, out, err = recap(capsys, "advantages", "--workspace", lab.root)
    assert status == 0 and "warning: failure_penalty is 0.5, below 1" in err
    assert "  STOP  " in out
