"""``recap value train`` and ``score`` through the real entry point, on tiny real episodes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.labels import LabelStore
from pipeline.site_config import SiteConfig, load_site_config
from pipeline.site_value import ValueSection
from pipeline.workspace import EpisodeEntry, Workspace
from tests.tiny_episodes import EpisodeMaker
from value_model.training_config import ValueTrainingConfig
from value_model.training_curves import CURVES_NAME, read_curves
from workflows.cli import main
from workflows.improvement import freeze_labels
from workflows.loop_graph import LoopGraph
from workflows.recording_settings import PICK_TASKS
from workflows.settings import (
    FULL,
    QUICK,
    ValueSettings,
    resized,
    settings_from_site,
    value_training,
    value_with,
)
from workflows.step_store import StepStore
from workflows.value_ensemble import ensemble_path, load_ensemble, save_ensemble

TOML = "[value]\nfailure_penalty = 0.5\nsteps = 7\n"


def recap(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one command."""
    capsys.readouterr()
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def make_workspace(root: Path, outcomes: Sequence[str | None]) -> Workspace:
    """A workspace with an episode for each outcome; ``None`` leaves it unlabelled."""
    workspace = Workspace(root).create()
    make = EpisodeMaker(workspace)
    # Who drove differs, so that no two are the same recording: copies with different outcomes are refused.
    entries = [
        make(sources=[Source.POLICY if number >> frame & 1 else Source.TELEOP for frame in range(12)])
        for number in range(len(outcomes))
    ]
    label(workspace, entries, outcomes)
    return workspace


def label(workspace: Workspace, entries: Sequence[EpisodeEntry], outcomes: Sequence[str | None]) -> None:
    """Labels each episode with its outcome; ``None`` leaves it unlabelled."""
    with LabelStore(workspace.labels_path) as store:
        store.sync((entry.id, entry.info.task) for entry in entries)
        for entry, outcome in zip(entries, outcomes, strict=True):
            lease = store.claim_episode(entry.id, "ana")
            assert lease is not None
            if outcome is not None:
                store.record(lease, outcome)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose value models were trained by the command, quickly, with settings of its own.

    Once for all processes that run these tests, since Ray takes its time to start: only to be read.
    """
    mine = tmp_path_factory.getbasetemp()
    shared = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    root, ready = shared / "value-training" / "lab", shared / "value-training-ready"
    with FileLock(shared / "value-training.lock"):
        if not ready.exists():
            workspace = make_workspace(root, ["success", "failure"] * 4 + [None])
            workspace.config_path.write_text(TOML)
            words = ["value", "train", "--quick", "--log", "tensorboard", "--workspace", str(root)]
            assert main(words) == 0
            ready.touch()
    return Workspace(root)


@pytest.fixture
def copied(trained: Workspace, tmp_path: Path) -> Workspace:
    """A copy of that workspace elsewhere, to change."""
    shutil.copytree(trained.root, tmp_path / "moved")
    return Workspace(tmp_path / "moved")


def test_what_was_trained_is_used_again_and_summed_up(
    copied: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = recap(capsys, "value", "train", "--quick", "--workspace", copied.root)
    assert status == 0 and "Ray" not in err
    lines = out.splitlines()
    assert lines[0].split() == ["fold", "member", "best", "loss", "at", "step", "time"]
    assert [line.split()[:2] for line in lines[1:3]] == [["1", "1"], ["2", "1"]]
    assert all(line.endswith("used again") for line in lines[1:3])
    assert lines[3] == "2 value models: 2 folds of 1"
    assert lines[4].startswith("trained on 4 successes and 4 failures of 9 episodes")
    assert lines[4].endswith("next: recap value score")
    # The site's penalty.
    (warning,) = [line for line in err.splitlines() if line.startswith("warning: failure_penalty")]
    assert "failure_penalty is 0.5, below 1" in warning


def test_improve_and_demo_find_the_same_steps(copied: Workspace) -> None:
    ids = [entry.id for entry in copied.list_episodes()]
    snapshot = freeze_labels(copied, ids)
    site = load_site_config(copied.config_path)
    store = StepStore(copied.steps)
    # As 'recap improve' and 'recap demo' make their settings: much differs, nothing that values depend on.
    for settings in (
        resized(settings_from_site(QUICK, site), seed=0, tasks=("pick up the red cube",)),
        resized(settings_from_site(QUICK, site), seed=0, demonstrations=9, tasks=PICK_TASKS),
    ):
        graph = LoopGraph(copied, settings)
        turn = graph.turn(snapshot, graph.base(snapshot))
        assert len(turn.members) == 2
        assert all(store.find(step) is not None for step in [*turn.members, *turn.cache])
    other = LoopGraph(copied, resized(settings_from_site(QUICK, site), seed=1)).value_members(snapshot)
    assert all(store.find(step) is None for step in other)


def test_the_ensemble_names_what_was_trained_and_moves_with_the_workspace(copied: Workspace) -> None:
    ensemble = load_ensemble(copied)
    assert all(member.is_relative_to(copied.root) and member.is_dir() for member in ensemble.members)
    config = ValueTrainingConfig.from_parameters(ensemble.training)
    # The site's failure penalty counts; its number of steps does not, since --quick stays quick.
    assert (config.failure_penalty, config.steps, config.members) == (0.5, QUICK.value.steps, 1)
    site = load_site_config(copied.config_path)
    assert config == value_training(resized(settings_from_site(QUICK, site), seed=0))
    assert ensemble.image_size == 84
    snapshot = freeze_labels(copied, [entry.id for entry in copied.list_episodes()])
    assert ensemble.snapshot == snapshot.digest


def test_curves_are_in_the_steps_folder_and_in_tensorboard(trained: Workspace) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for member in load_ensemble(trained).members:
        points = read_curves(member / CURVES_NAME)
        assert [step for name, step, _ in points if name == "loss/training"] == [50, 60]
        key = member.parent.name
        (folder,) = (trained.root / "value-curves").glob(f"*-{key[:8]}")
        told = EventAccumulator(str(folder)).Reload().Scalars("loss/training")
        losses = [value for name, _, value in points if name == "loss/training"]
        assert [event.value for event in told] == pytest.approx(losses)
    assert not list((trained.steps / ".resume").iterdir())


def test_every_episode_is_scored_once_and_what_cannot_be_read_is_named(
    copied: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = recap(capsys, "value", "score", "--workers", "1", "--workspace", copied.root)
    assert status == 0
    assert out.startswith("9 episodes scored (108 frames") and "0 scored before" in out
    status, out, _ = recap(capsys, "value", "score", "--episodes", "episode-002", "--workspace", copied.root)
    assert status == 0 and out.startswith("0 episodes scored") and "1 scored before" in out
    make = EpisodeMaker(copied)
    make.made = 20
    make()
    broken = make().path
    broken.write_bytes(broken.read_bytes()[:2000])
    status, out, err = recap(capsys, "value", "score", "--workers", "1", "--workspace", copied.root)
    assert status == 2
    assert out.startswith("1 episode scored (12 frames") and "9 scored before" in out
    assert "episode-021" in err and "1 of 11 episodes could not be scored, the rest could" in err
    name = broken.stem
    status, _, err = recap(capsys, "value", "score", "--episodes", name, "--workspace", copied.root)
    assert status == 2 and "1 of 1 episode could not be scored: see" in err


def test_check_says_what_the_gate_found_and_returns_its_status(
    copied: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = recap(capsys, "value", "check", "--json", "--workspace", copied.root)
    # Eight episodes of a moving square cannot pass: the outcome is not in the pictures.
    assert status == 1
    assert json.loads(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda:99"], "the device 'cuda:99' is not there"),
        (["--device", "abacus"], "there is no device 'abacus'"),
        (["--device", "meta"], "on cpu or cuda"),
        (["--workers", "4096"], "4096 workers need as many cores"),
        (["--folds", "5"], "4 episodes labelled success for 5 folds"),
        (["--ray", "127.0.0.1:1"], "there is no Ray cluster at 127.0.0.1:1"),
        (["--ray-address", "somewhere"], "'somewhere' is no address of a Ray cluster"),
        (["--network", "vlm"], "needs a backbone"),
        (["--backbone", "/no/such/folder"], "there is no folder '/no/such/folder'"),
        (["--backbone", "lab/model"], "use --allow-download (allow_download = true in recap.toml)"),
        (["--tune", "lora"], "--tune is for a pretrained backbone"),
        (["--network", "small", "--backbone", "x"], "not small"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(
    copied: Workspace, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    before = sorted(copied.steps.rglob("*"))
    status, out, err = recap(capsys, "value", "train", *options, "--workspace", copied.root)
    assert (status, out) == (2, "")
    assert message in err and len(err.splitlines()) == 1
    assert sorted(copied.steps.rglob("*")) == before


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ([], "there are no episodes"),
        ([None, None], "none of the 2 episodes is labelled"),
        (["success"] * 4, "no episode is labelled failure"),
        (["success", "success", "failure"], "1 episode labelled failure for 2 folds"),
    ],
)
def test_too_few_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], outcomes: list[str | None], message: str
) -> None:
    workspace = make_workspace(tmp_path / "lab", outcomes)
    status, out, err = recap(capsys, "value", "train", "--workspace", workspace.root)
    assert (status, out) == (2, "") and message in err and len(err.splitlines()) == 1
    assert not list(workspace.steps.iterdir())


def test_an_episode_that_was_cut_off_is_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path / "lab").create()
    make = EpisodeMaker(workspace)
    entries = [make(), make(), make(), make(truncated=True)]
    label(workspace, entries, ["success"] * 3 + ["failure"])
    status, _, err = recap(capsys, "value", "train", "--workspace", workspace.root)
    assert status == 2
    assert "no episode is labelled failure (1 labelled ones were cut off" in err


def test_without_value_models_or_with_one_gone_it_says_what_to_do(
    copied: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble = load_ensemble(copied)
    with pytest.raises(InputError, match=r"\(0, 0\)\], but \[\(0, 0\), \(1, 0\)\] are needed"):
        save_ensemble(copied, replace(ensemble, members=ensemble.members[:1]))
    with pytest.raises(InputError, match="are needed"):
        save_ensemble(copied, replace(ensemble, members=(*ensemble.members, ensemble.members[0])))
    assert load_ensemble(copied) == ensemble
    shutil.rmtree(ensemble.members[1])
    status, _, err = recap(capsys, "value", "score", "--workspace", copied.root)
    assert status == 2 and "is gone" in err and "recap value train" in err
    for text in ("", "{}", "[]", '{"format_version": 9}', '{"format_version": 1, "members": [3]}'):
        ensemble_path(copied).write_text(text)
        with pytest.raises(InputError, match="recap value train"):
            load_ensemble(copied)
    ensemble_path(copied).unlink()
    status, _, err = recap(capsys, "value", "score", "--workspace", copied.root)
    assert status == 2 and "no value model yet" in err and "recap value train" in err


def test_what_the_site_says_is_taken_over() -> None:
    said = ValueSection(members=3, n_seconds=1.5, positive_fraction=0.4, device="cuda", workers=2)
    settings = settings_from_site(FULL, SiteConfig(value=said))
    assert settings.value == ValueSettings(
        members=3, n_step=None, n_seconds=1.5, positive_fraction=0.4, device="cuda", workers=2
    )
    # Evaluations of a turn stop as soon as they are decided.
    turn = replace(FULL, promotion=replace(FULL.promotion, stop_early=True))
    assert settings_from_site(FULL, SiteConfig()) == turn
    assert replace(settings, value=FULL.value) == turn
    to_the_end = value_with(FULL.value, ValueSection(n_step="end"))
    assert (to_the_end.n_step, to_the_end.n_seconds) == (None, None)
    frames = value_with(settings.value, ValueSection(n_step=20))
    assert (frames.n_step, frames.n_seconds) == (20, None)
    vlm = value_with(FULL.value, ValueSection(backbone="/models/siglip"))
    assert (vlm.network, vlm.tune) == ("vlm", "lora")
    assert value_with(vlm, ValueSection(network="small")) == replace(FULL.value, tune=vlm.tune)


def test_what_contradicts_itself_is_refused() -> None:
    for wrong in (
        {"n_step": 10, "n_seconds": 1.0},
        {"network": "vlm"},
        {"backbone": "/models/siglip"},
    ):
        with pytest.raises(InputError):
            ValueSettings(**wrong)
