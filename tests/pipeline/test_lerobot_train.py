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


# The command that LeRobot installs, once for each of the lists of its words: loading it takes longest.
EACH = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""


def words(dataset: Path, out: Path, *options: str) -> list[str]:
    """The command, as a lab would give it, without a network."""
    return [
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


def test_any_policy_that_lerobot_trains_gets_the_prompts_and_ours_trains(
    conditioned: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    ours = words(
        conditioned,
        tmp_path / "ours",
        "--policy.discover_packages_path=pipeline.policy",
        "--policy.type=gen3_vla",
    )
    any_other = words(
        conditioned,
        tmp_path / "other",
        "--policy.discover_packages_path=tests.pipeline.witness_policy",
        "--policy.type=witness",
        f"--policy.notes={notes}",
        *TINY_ACT,
    )
    # Theirs first, so that nothing has made ours known.
    printed = run_each(any_other, ours)
    assert printed.count("Creating policy") == 2 and "loss:" in printed.split("Creating policy")[2]
    batches = [json.loads(line) for line in notes.read_text().splitlines()]
    assert len(batches) == STEPS
    # The view has 14 frames: the first two batches are every frame once.
    dataset = open_dataset(conditioned)
    prompts = [dataset[i]["task"] for i in range(len(dataset))]
    assert sorted(batches[0] + batches[1]) == sorted(prompts)
    seen = {parse_prompt(text) for text in prompts}
    assert seen == {(task, word) for task in (RED, BLUE) for word in ("positive", "negative", None)}


def run_each(*commands: list[str]) -> str:
    """Runs the commands in one new process; what it printed."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(commands)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
