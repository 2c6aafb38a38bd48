"""``recap policy evaluate``: two checkpoints on the same starts, and policies from what was recorded."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.policy_tables import random_table, train_tiny
from tests.tiny_checkpoint import save_tiny_checkpoint
from tests.tiny_smolvla import TINY_ACT, TINY_GEN3
from tests.workflows.door_lab import DRIVER, make_lab
from workflows.cli import main
from workflows.comparison import Attempt
from workflows.policy_evaluation import difference, difference_lines, figures, find_checkpoint
from workflows.recorded_evaluation import recorded_policies

ONE = ["--starts", "1", "--max-seconds", "1"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    train_tiny(folder / "act", "act", TINY_ACT, random_table())
    return {"act": folder / "act", "gen3_vla": save_tiny_checkpoint(folder / "gen3_vla", **TINY_GEN3)}


def evaluate(lab: Workspace, *words: str) -> int:
    return main(["policy", "evaluate", "--workspace", str(lab.root), *words])


def test_two_kinds_of_policies_run_the_same_starts(
    lab: Workspace, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "films" / "both.gif"
    names = [str(checkpoints["gen3_vla"]), str(checkpoints["act"])]
    assert evaluate(lab, *names, *ONE, "--json", "--film", str(film)) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["policies"]] == ["gen3_vla", "act"]
    assert [one["asked_for"] for one in found["policies"]] == ["positive", "positive"]
    assert all(one["attempts"] == 1 and one["success_rate"]["high"] > 0 for one in found["policies"])
    assert found["difference"]["starts"] == 1 and 0 < found["difference"]["p_value"] <= 1
    with Image.open(film) as picture:
        assert getattr(picture, "n_frames", 1) > 1


def test_guidance_is_refused_where_the_policy_has_none(
    lab: Workspace, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(lab, str(checkpoints["act"]), *ONE, "--guidance", "2") == 2
    assert "policies of type act take no guidance; leave it out" in capsys.readouterr().err


def test_what_a_checkpoint_is_asked_for_follows_from_its_training(
    lab: Workspace, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    assert find_checkpoint(str(checkpoints["act"]), lab).indicator == "positive"
    from pipeline.policy.checkpoint import load_checkpoint

    load_checkpoint(checkpoints["gen3_vla"]).save(tmp_path / "base")
    assert find_checkpoint(str(tmp_path / "base"), lab).indicator is None


def test_a_step_is_named_with_its_policys_type(
    lab: Workspace, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    for kind, checkpoint in checkpoints.items():
        step = tmp_path / "train_policy" / f"{kind[0]}1fa245a99"
        step.mkdir(parents=True)
        (step / "checkpoint").symlink_to(checkpoint)
        assert find_checkpoint(str(step), lab).name == kind  # a link: the folder that it leads to
        (step / "checkpoint").unlink()
        shutil.copytree(checkpoint, step / "checkpoint")
        found = find_checkpoint(str(step), lab)
        assert found.name == f"{kind} train_policy/{kind[0]}1fa245a"
        assert found.label == f"{kind} {kind[0]}1fa245a", "what a film has room for"
    (tmp_path / "good").symlink_to(step / "checkpoint")
    linked = find_checkpoint(str(tmp_path / "good"), lab)
    assert (linked.name, linked.label) == (f"good ({found.name})", "good")
    shutil.copytree(checkpoints["act"], tmp_path / "mine")
    assert find_checkpoint(str(tmp_path / "mine"), lab).name == "act mine"
    (tmp_path / "empty").mkdir()
    assert find_checkpoint(str(tmp_path / "empty"), lab).name == "empty"


def test_the_difference_counts_pairs() -> None:
    def attempts(successes: list[int], interventions: list[int]) -> list[Attempt]:
        return [
            Attempt("t", i, bool(success), 10, 1.0, taken)
            for i, (success, taken) in enumerate(zip(successes, interventions, strict=True))
        ]

    better, worse = attempts([1, 1, 1, 0], [0, 0, 1, 0]), attempts([1, 0, 0, 1], [1, 1, 1, 1])
    found = difference(better, worse)
    assert (found["gained"], found["lost"], found["starts"]) == (2, 1, 4)
    assert found["success_rate"]["value"] == pytest.approx(0.25)
    assert found["interventions_per_episode"]["value"] == pytest.approx(-0.75)
    assert figures(better)["successes_per_hour"]["value"] == pytest.approx(2700)
    assert figures(worse)["interventions_per_episode"]["value"] == 1.0


def exact_p(better: list[int]) -> float:
    """One-sided, over all swaps, for starts that only the candidate (1) or only the other (-1) solved."""
    swaps = itertools.product((1, -1), repeat=len(better))
    sums = [sum(s * z for s, z in zip(signs, better, strict=True)) for signs in swaps]
    return sum(one >= sum(better) for one in sums) / len(sums)


@given(better=st.lists(st.sampled_from([1, 0, -1]), min_size=1, max_size=9))
@example(better=[1])
@example(better=[1, 1])
@example(better=[1, 1, 1])
@example(better=[1] * 5)
@example(better=[0, 0])
def test_the_difference_is_tested_as_by_all_swaps(better: list[int]) -> None:
    candidate, reference = (
        [Attempt("t", i, one == side, 9, 1.0) for i, one in enumerate(better)] for side in (1, -1)
    )
    found = difference(candidate, reference)
    p = exact_p(better)
    telling = sum(map(abs, better))
    assert found["p_value"] >= 0.5**telling
    assert found["p_value"] == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 9999) + 2e-4)
    assert found["too_few"] == (telling < 5) and found["telling"] == telling
    if telling < 5:
        assert not found["better"] and found["successes_per_hour"]["low"] is None
    elif abs(p - 0.05) > 0.01:
        assert found["better"] == (p < 0.05)


@pytest.mark.parametrize(
    ("starts", "words"),
    [
        (1, "the same start: too few starts to judge (1 of them tells the two apart)"),
        (3, "the same 3 starts: too few starts to judge (3 of them tell the two apart)"),
        (5, "the same 5 starts: better beyond chance (one-sided p 0.03"),
    ],
)
def test_no_verdict_from_too_few_starts(starts: int, words: str) -> None:
    candidate, reference = ([Attempt("t", i, won, 9, 1.0) for i in range(starts)] for won in (True, False))
    said = "\n".join(difference_lines("B", "A", difference(candidate, reference)))
    assert words in said and ("successes per hour +3600 [" in said) == (starts == 5)


def test_a_policy_is_not_compared_with_itself(
    lab: Workspace, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(checkpoints["act"], tmp_path / "copy")
    assert evaluate(lab, str(checkpoints["act"]), str(tmp_path / "copy"), *ONE) == 2
    said = capsys.readouterr().err
    assert "are the same checkpoint" in said and said.count("\n") == 1


def test_recorded_rollouts_become_a_table_by_checkpoint(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = recorded_policies(lab)
    assert (found.checkpoint, found.robot) == (DRIVER, "simulated_gen3")
    # Two stretches of corrections in the first rollout, none in the second.
    assert [(a.success, a.interventions, a.steps) for a in found.attempts] == [(True, 2, 6), (False, 0, 5)]
    assert evaluate(lab, "--from-episodes") == 0
    said = capsys.readouterr().out
    assert f"{DRIVER} on simulated_gen3" in said and "50 % [9, 91]" in said and "1.00 [0.00, 2.00]" in said
    assert evaluate(lab, "--from-episodes", "--task", "stack the cubes") == 2
    assert "no policy drove" in capsys.readouterr().err


def test_without_labels_marks_can_stand_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = make_lab(tmp_path)
    lab.labels_path.unlink()
    with LabelStore(lab.labels_path):
        pass
    assert evaluate(lab, "--from-episodes") == 0
    assert "2 not labelled, so not counted" in capsys.readouterr().out
    (found,) = recorded_policies(lab, use_marks=True)
    assert found.unlabelled == 2, "nobody pressed a key either"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "c"], "give one checkpoint, or two to compare"),
        (["champion"], "there is no champion yet"),
        (["/no/such/folder"], "is neither champion, base nor a checkpoint's folder"),
        (["a", "b", "--film", "both.mp4"], "name a file that ends in .gif"),
        (["--marks"], "--marks is for --from-episodes"),
        (["--from-episodes", "champion"], "--from-episodes takes --task, --marks and --json"),
    ],
)
def test_misuse_is_said_in_one_line(
    lab: Workspace, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(lab, *words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
