"""A training that is killed goes on where it was, to the very weights that it would have had."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.resume_state import Keeper
from tests.tiny_backbone import build_backbone
from tests.value_model.killed_training import CONFIG, DATA
from tests.value_model.synthetic import SIZE
from value_model.checkpoint import WEIGHTS_NAME, read_record
from value_model.network import VlmNetworkConfig
from value_model.training import ValueTrainingConfig, train_fold
from value_model.training_curves import CURVES_NAME, read_curves


def interrupted(resume: Path, out: Path, config: ValueTrainingConfig = CONFIG, *, at: int) -> None:
    """Trains until step ``at`` and gives up there, as an exception does; leaves the resume file."""

    def give_up(done: int, _total: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fold(*DATA, config, 1, 0, out, give_up, resume=resume)


def test_killed_and_continued_gives_the_same_bits_as_undisturbed(tmp_path: Path) -> None:
    resume, out = tmp_path / "resume.safetensors", tmp_path / "killed"
    words = [sys.executable, "-m", "tests.value_model.killed_training", str(out), str(resume), "40"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "standing still\n"
        process.kill()
        assert process.wait() != 0
    assert resume.is_file()
    assert not (out / WEIGHTS_NAME).exists()
    told: list[int] = []
    continued = train_fold(*DATA, CONFIG, 1, 0, out, lambda done, _: told.append(done), resume=resume)
    # Steps 31 to 40 were lost and are taken again; those before are not.
    assert told == [40, 50, 60, 60]
    assert resume.is_file(), "who publishes the result removes it"
    whole = train_fold(*DATA, CONFIG, 1, 0, tmp_path / "whole")
    assert (continued.path / WEIGHTS_NAME).read_bytes() == (whole.path / WEIGHTS_NAME).read_bytes()
    assert read_record(continued.path) == read_record(whole.path)
    assert replace(continued, path=whole.path, seconds=0) == replace(whole, seconds=0)


def test_interrupted_between_two_evaluations_it_gives_the_same_bits_too(tmp_path: Path) -> None:
    class GivesUp(Keeper):
        """Keeps a state after each step, and gives up after that of step 37."""

        kept = 0

        def keep(self, write: Callable[[], object]) -> None:
            super().keep(write)
            self.kept += 1
            if self.kept == 37:
                raise KeyboardInterrupt

    resume = tmp_path / "resume"
    with pytest.raises(KeyboardInterrupt):
        train_fold(*DATA, CONFIG, 1, 0, tmp_path / "out", resume=resume, keeper=GivesUp(0.0, math.inf))
    told: list[int] = []
    again = train_fold(*DATA, CONFIG, 1, 0, tmp_path / "out", lambda n, _: told.append(n), resume=resume)
    whole = train_fold(*DATA, CONFIG, 1, 0, tmp_path / "whole")
    assert told == [40, 50, 60, 60]
    for name in (WEIGHTS_NAME, CURVES_NAME):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_the_curves_of_a_continued_training_are_whole(tmp_path: Path) -> None:
    resume = tmp_path / "resume"
    interrupted(resume, tmp_path / "first", at=40)
    train_fold(*DATA, CONFIG, 1, 0, tmp_path / "again", resume=resume)
    train_fold(*DATA, CONFIG, 1, 0, tmp_path / "whole")
    again, whole = (read_curves(tmp_path / name / CURVES_NAME) for name in ("again", "whole"))
    assert again == whole
    assert not any(name == "frames_per_s" for name, _, _ in whole), "a time makes every run's file another"
    assert [step for name, step, _ in whole if name == "loss/validation"] == [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize(
    "other",
    [
        replace(CONFIG, steps=20, seed=1),
        replace(CONFIG, steps=20, learning_rate=1e-3),
        replace(CONFIG, steps=20, failure_penalty=0.5),
        replace(CONFIG, steps=50),
    ],
    ids=["seed", "learning_rate", "failure_penalty", "steps"],
)
def test_a_resume_file_of_another_training_is_not_used_and_that_is_logged(
    tmp_path: Path, other: ValueTrainingConfig, caplog: pytest.LogCaptureFixture
) -> None:
    resume, config = tmp_path / "resume", replace(CONFIG, steps=20)
    interrupted(resume, tmp_path / "first", other, at=20)
    with caplog.at_level(logging.WARNING):
        result = train_fold(*DATA, config, 1, 0, tmp_path / "second", resume=resume)
    assert "beginning anew" in caplog.text and str(resume) in caplog.text
    fresh = train_fold(*DATA, config, 1, 0, tmp_path / "fresh")
    assert (result.path / WEIGHTS_NAME).read_bytes() == (fresh.path / WEIGHTS_NAME).read_bytes()


def test_a_resume_file_of_other_pictures_or_another_member_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resume, config = tmp_path / "resume", replace(CONFIG, steps=20, members=2)
    table, outcomes = DATA
    interrupted(resume, tmp_path / "first", config, at=20)
    kept = resume.read_bytes()
    darker = replace(table, _episode_images=[images // 2 for images in table._episode_images])
    for data, member in (((darker, outcomes), 0), ((table, outcomes), 1)):
        resume.write_bytes(kept)
        caplog.clear()
        train_fold(*data, config, 1, member, tmp_path / "second", resume=resume)
        assert "beginning anew" in caplog.text


def test_half_a_resume_file_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    resume, config = tmp_path / "resume", replace(CONFIG, steps=20)
    interrupted(resume, tmp_path / "first", config, at=20)
    resume.write_bytes(resume.read_bytes()[:1000])
    train_fold(*DATA, config, 1, 0, tmp_path / "second", resume=resume)
    assert "cannot be read" in caplog.text


def test_a_resume_file_holds_the_best_weights_and_the_running_mean_apart(tmp_path: Path) -> None:
    resume = tmp_path / "resume"
    interrupted(resume, tmp_path / "first", at=40)
    held = load_file(resume)
    now = held["network/head.6.weight"]
    assert not np.array_equal(now, held["best/head.6.weight"])
    means = [held[name] for name in held if name.startswith("average/") and held[name].shape == now.shape]
    assert means and not any(np.array_equal(now, mean) for mean in means)


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_pretrained_backbone_goes_on_to_the_same_bits_too(
    tmp_path: Path, tune: Literal["lora", "full"]
) -> None:
    backbone = build_backbone(tmp_path / "backbone")
    network = VlmNetworkConfig(
        backbone=str(backbone), tune=tune, cameras=1, image_size=SIZE, state_size=0, precision="float32"
    )
    config = replace(CONFIG, network=network, steps=8, evaluate_every=2, batch_size=8)
    resume = tmp_path / "resume"
    interrupted(resume, tmp_path / "first", config, at=6)
    again = train_fold(*DATA, config, 1, 0, tmp_path / "again", resume=resume)
    whole = train_fold(*DATA, config, 1, 0, tmp_path / "whole")
    assert (again.path / WEIGHTS_NAME).read_bytes() == (whole.path / WEIGHTS_NAME).read_bytes()
    assert again.best_loss == whole.best_loss
