"""``recap policy train``: other people's policies on a workspace's advantages, loaded by LeRobot alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.episode import STATE_NAMES
from pipeline.errors import InputError
from pipeline.exchange.dataset_table import dataset_table
from pipeline.policy.runner import PolicyRunner
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from pipeline.workspace import Workspace
from tests.pipeline.datasets import CODES, export, three_episodes, view
from tests.tiny_episodes import TASK
from tests.tiny_smolvla import TINY_ACT, build_smolvlm, smolvla_options
from tests.workflows.door_lab import IMAGE_SIZE, make_lab
from workflows.cli import main
from workflows.local_ray import available_cpus, local_ray
from workflows.policy_door import STEP, DoorConfig, check_policy, dataset_step, newest_data, workspace_step
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.settings import FULL
from workflows.step_files import CHECKPOINT
from workflows.step_recipe import content_digest
from workflows.step_store import StepResult, StepStore

ROOT = Path(__file__).parents[2]
QUICK = ["--steps", "3", "--batch-size", "4"]

# LeRobot alone: nothing of this project is imported by hand, and no package is named.
LOAD = """
import json, sys, torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import OBS_STATE
folder = sys.argv[1]
config = PreTrainedConfig.from_pretrained(folder)
policy = get_policy_class(config.type).from_pretrained(folder, config=config)
pre, post = make_pre_post_processors(config, pretrained_path=folder)
seen = {key: torch.rand(feature.shape) for key, feature in config.image_features.items()}
batch = pre({**seen, OBS_STATE: torch.zeros(15), "task": sys.argv[2]})
action = post(policy.select_action(batch))
print(json.dumps({"task": batch["task"], "state": batch[OBS_STATE][0].tolist(), "action": action.shape[-1]}))
"""


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray for the tests that train; the others have no need of it."""
    with local_ray(2):
        yield


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_lab(tmp_path_factory.mktemp("lab"))


def words_of(options: dict[str, object]) -> list[str]:
    return [f"--policy.{key}={json.dumps(value)}" for key, value in options.items()]


def train(lab: Workspace, *words: str) -> StepResult:
    assert main(["policy", "train", "--workspace", str(lab.root), *QUICK, *words]) == 0
    return max(StepStore(lab.steps).published(STEP), key=lambda step: step.path.stat().st_mtime_ns)


def loaded_by_lerobot(checkpoint: Path) -> dict[str, object]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, str(checkpoint), TASK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def observation() -> dict[str, object]:
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return {**dict.fromkeys(STATE_NAMES, 0.1), "table": image, "wrist": image}


@pytest.mark.usefixtures("ray_here")
def test_smolvla_learns_from_the_newest_advantages_and_loads_without_us(
    lab: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = words_of(smolvla_options(build_smolvlm(tmp_path / "vlm")))
    step = train(lab, "--policy.type", "smolvla", *options)
    said = capsys.readouterr().out
    assert 'advantage: in the text ("... Advantage: positive")' in said
    cores = available_cpus()
    assert (f"computes on 1 of {cores} cores: --threads {cores} takes them all" in said) == (cores > 1)
    checkpoint = step.path / CHECKPOINT
    assert f"checkpoint: {checkpoint}" in said
    assert step.manifest["parameters"]["training"]["policy_type"] == "smolvla"
    assert step.manifest["inputs"]["advantages"].startswith("advantages/")
    assert step.manifest["parameters"]["training"]["indicator_dropout"] == 0.3
    # The backbone that an option names counts by its files.
    (folder,) = step.manifest["inputs"]["option_folders"]
    assert folder == f"external:{content_digest(tmp_path / 'vlm')}"
    found = loaded_by_lerobot(checkpoint)
    # SmolVLA's own step adds the line's end behind ours.
    assert found["task"] == [f"{TASK}. Advantage: positive\n"] and found["action"] == 7
    # Tuned further, as the weights of this robot: statistics and features stay.
    training = {"steps": 2, "batch_size": 4, "lora_rank": 2, "precision": "bfloat16"}
    # Nothing of a whole checkpoint is to be fetched, so that it may be makes no difference.
    config = DoorConfig("smolvla", str(checkpoint), allow_download=True, training=training)
    check_policy(config, IMAGE_SIZE)
    with pytest.raises(InputError, match=r"is trained further as it is: leave --policy\.chunk_size out"):
        check_policy(replace(config, options={"chunk_size": 3}), IMAGE_SIZE)
    store, again = StepStore(lab.steps), workspace_step(lab, newest_data(lab), config)
    assert store.execute(store.call(again), lambda *_: None)
    tuned = store.find(again)
    assert tuned is not None and tuned.manifest["inputs"]["start"].startswith("external:")
    runner = PolicyRunner(tuned.path / CHECKPOINT)
    runner.reset(TASK)
    assert runner.act(observation()).shape == (7,)
    train(lab, "--policy.type", "smolvla", *options)
    assert "used again" in capsys.readouterr().out


@pytest.mark.usefixtures("ray_here")
def test_act_gets_the_advantage_in_its_state_from_a_dataset(
    lab: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = three_episodes(tmp_path / "theirs")
    dataset = view(export(entries, tmp_path / "base"), entries, tmp_path / "view")
    words = ["--policy.type", "act", "--dataset", str(dataset), "--image-size", str(IMAGE_SIZE)]
    step = train(lab, *words, *words_of(TINY_ACT))
    assert "act reads no text, so its state gets one more number" in capsys.readouterr().out
    # The dataset's prompts have left out their share of the indicators already.
    assert step.manifest["parameters"]["training"]["indicator_dropout"] == 0.0
    asked_for = DoorConfig("act", training={"indicator_dropout": 0.2})
    assert dataset_step(dataset, asked_for).parameters["training"]["indicator_dropout"] == 0.2
    found = loaded_by_lerobot(step.path / CHECKPOINT)
    state = found["state"]
    assert isinstance(state, list) and len(state) == 16 and state[-1] == pytest.approx(1.0)
    asked = {}
    for indicator in ("positive", "negative", None):
        runner = PolicyRunner(step.path / CHECKPOINT, indicator=indicator)
        runner.reset(TASK)
        asked[indicator] = runner.act(observation())
    assert not np.array_equal(asked["positive"], asked["negative"])
    assert not np.array_equal(asked["positive"], asked[None])


def test_a_datasets_table_is_its_frames_and_their_indicators(tmp_path: Path) -> None:
    entries = three_episodes(tmp_path / "lab")
    dataset = view(export(entries, tmp_path / "base"), entries, tmp_path / "view")
    table, indicators = dataset_table(dataset, IMAGE_SIZE)
    assert table.lengths.tolist() == [entry.length for entry in entries]
    assert table.tasks == [entry.info.task for entry in entries]
    assert set(indicators.tolist()) == {POSITIVE, NEGATIVE, NONE}
    assert np.array_equal(indicators, np.concatenate([np.resize(CODES, entry.length) for entry in entries]))
    assert table.images(np.arange(len(table))).shape == (len(table), 2, IMAGE_SIZE, IMAGE_SIZE, 3)
    # The action of tiny_frame is its number over a hundred.
    np.testing.assert_allclose(table.action[:, 0], table.frame_index / 100, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy.type", "smolvle"], "did you mean smolvla"),
        (["--policy.type", "act", "--policy.chunk_sze=3"], "did you mean chunk_size"),
        (["--policy.type", "act", "--policy.chunk_size=3"], "chunk"),
        (["--policy.type", "tdmpc"], "tdmpc learns from rewards"),
        (["--policy.type", "gaussian_actor"], "gaussian_actor learns from rewards"),
        (["--learning-rate", "nan"], "learning_rate is nan, must be a finite number"),
        (["--stepss", "5"], "no such option: --stepss: did you mean --steps?"),
        (["--policy-type", "act"], "no such option: --policy-type: did you mean --policy.type?"),
        (["--polcy.type", "act"], "no such option: --polcy.type: did you mean --policy.type?"),
        (["--policy-path=DIR"], "no such option: --policy-path=DIR: did you mean --policy.path?"),
        (["--lora-rank", "4"], "name them with --policy.path"),
        (["--image-size", "64"], "--image-size is for --dataset"),
        (["--dataset", "/no/such"], "there is no LeRobotDataset"),
        (["--policy.path", "lerobot/smolvla_base"], "add --allow-download"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    lab: Workspace, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "train", "--workspace", str(lab.root), *words]) == 2
    out, said = capsys.readouterr()
    assert message in said and said.count("\n") == 1
    assert out == "", "nothing was begun"


@pytest.mark.parametrize(
    "words",
    [["--polcy.type", "act"], ["--lora-rank", "4"], ["--learning-rate", "nan"], ["--dataset", "/no"], []],
)
def test_what_needs_no_network_is_told_without_loading_torch(tmp_path: Path, words: list[str]) -> None:
    Workspace(tmp_path).create()
    script = (
        "import sys\nfrom workflows.cli import main\n"
        "assert main(sys.argv[1:]) == 2\nassert not {'torch', 'lerobot', 'ray'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", script, "policy", "train", "--workspace", str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_help_says_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    main(["policy", "train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    training, policy = PolicyTrainingConfig(), FULL.policy
    for option, default in (
        ("steps", policy.fine_tune_steps),
        ("batch-size", training.batch_size),
        ("accumulate", training.accumulate),
        ("learning-rate", f"LeRobot's for the type; gen3_vla {policy.fine_tune_learning_rate}"),
        ("lora-rank", f"{training.lora_rank}: the weights"),
        ("precision", training.precision),
        ("ema-decay", training.ema_decay),
        ("indicator-dropout", f"{policy.indicator_dropout}; with --dataset 0,"),
        ("positive-share", "as many as there are"),
        ("image-size", FULL.recording.image_size),
        ("device", training.device),
    ):
        _, found, rest = said.partition(f"--{option} <")
        assert found and rest.split("[default: (", 1)[1].startswith(str(default)), option
    assert training.positive_share is None


def test_without_advantages_the_next_command_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Workspace(tmp_path).create()
    assert main(["policy", "train", "--workspace", str(tmp_path)]) == 2
    assert "run 'recap value train' and then 'recap advantages'" in capsys.readouterr().err
