"""The real ``lerobot-train`` command, unchanged, on a conditioned view: its batches hold the prompts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.prompts import parse_prompt
from tests.pipeline.datasets import BLUE, RED, export, open_dataset, three_episodes, view

pytest.importorskip("lerobot.datasets")

STEPS = 3
TINY_ACT = [
    "--policy.pretrained_backbone_weights=null",
    "--policy.chunk_size=4",
    "--policy.n_action_steps=4",
    "--policy.dim_model=32",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=32",
    "--policy.n_encoder_layers=1",
    "--policy.use_vae=false",
]


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    entries = three_episodes(folder)
    return view(export(entries, folder / "base"), entries, folder / "view")


def train(dataset: Path, out: Path, *options: str) -> str:
    """Runs the command that LeRobot installs, as a lab would, without a network; returns what it printed."""
    command = [
        str(Path(sys.executable).with_name("lerobot-train")),
        "--dataset.repo_id=lab/any-name",
        f"--dataset.root={dataset}",
        "--dataset.video_backend=pyav",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        f"--output_dir={out}",
        f"--steps={STEPS}",
        "--batch_size=8",
        "--num_workers=0",
        "--log_freq=1",
        "--save_checkpoint=false",
        "--wandb.enable=false",
        *options,
    ]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_any_policy_that_lerobot_trains_gets_the_prompts(conditioned: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    train(
        conditioned,
        tmp_path / "out",
        "--policy.discover_packages_path=tests.pipeline.witness_policy",
        "--policy.type=witness",
        f"--policy.notes={notes}",
        *TINY_ACT,
    )
    batches = [json.loads(line) for line in notes.read_text().splitlines()]
    assert len(batches) == STEPS
    # The view has 14 frames: the first two batches are every frame once.
    dataset = open_dataset(conditioned)
    prompts = [dataset[i]["task"] for i in range(len(dataset))]
    assert sorted(batches[0] + batches[1]) == sorted(prompts)
    seen = {parse_prompt(text) for text in prompts}
    assert seen == {(task, word) for task in (RED, BLUE) for word in ("positive", "negative", None)}


def test_our_policy_trains_on_a_view_through_lerobots_command(conditioned: Path, tmp_path: Path) -> None:
    printed = train(
        conditioned,
        tmp_path / "out",
        "--policy.discover_packages_path=pipeline.policy",
        "--policy.type=gen3_vla",
    )
    assert "loss:" in printed
