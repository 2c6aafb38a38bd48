"""A policy's training that is killed goes on where it was, to the very weights that it would have had."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.policy.checkpoint import load_checkpoint
from pipeline.resume_state import Keeper
from tests.workflows.killed_policy_training import CONFIG, INDICATORS, TABLE, EveryStep
from workflows.policy_training import PolicyTrainingConfig, train_policy

SHORT = replace(CONFIG, steps=12)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted(resume: Path, out: Path, config: PolicyTrainingConfig, at: int, **options: Any) -> None:
    """Trains ``at`` steps and gives up in the middle of the next, as an exception does."""

    class GivesUp(EveryStep):
        def keep(self, write: Callable[[], object]) -> None:
            super().keep(write)
            if self.kept == at:
                raise KeyboardInterrupt

    start = options.pop("start", None)
    with pytest.raises(KeyboardInterrupt):
        train_policy(TABLE, INDICATORS, config, start, out, resume=resume, keeper=GivesUp(), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of an undisturbed training."""
    out = tmp_path_factory.mktemp("whole") / "checkpoint"
    train_policy(TABLE, INDICATORS, CONFIG, None, out)
    return out


def test_killed_and_continued_gives_the_same_bytes_as_undisturbed(tmp_path: Path, whole: Path) -> None:
    resume, out = tmp_path / "resume.safetensors", tmp_path / "killed"
    # Between two entries of the curve, so that there are losses that no entry has yet.
    words = [sys.executable, "-m", "tests.workflows.killed_policy_training", str(out), str(resume), "17"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "standing still\n"
        process.kill()
        assert process.wait() != 0
    assert not out.exists()
    told: list[int] = []
    keeper = EveryStep()
    train_policy(
        TABLE,
        INDICATORS,
        CONFIG,
        None,
        out,
        lambda step, *_: told.append(step),
        resume=resume,
        keeper=keeper,
    )
    assert keeper.kept == CONFIG.steps - 17, "only what was lost is trained again"
    assert told == [20, 30, 34]
    assert files(out) == files(whole)
    assert resume.is_file(), "who publishes the result removes it"


def test_interrupted_again_and_again_it_still_gives_the_same_bytes(tmp_path: Path, whole: Path) -> None:
    resume, out = tmp_path / "resume", tmp_path / "out"
    for at in (1, 9, 10, 3):
        interrupted(resume, out, CONFIG, at)
    train_policy(TABLE, INDICATORS, CONFIG, None, out, resume=resume)
    assert files(out) == files(whole)


@pytest.mark.parametrize(
    "config",
    [
        replace(SHORT, accumulate=3),
        replace(SHORT, precision="bfloat16"),
        replace(SHORT, ema_decay=0.0, positive_share=None),
        replace(SHORT, lora_rank=2),
    ],
    ids=["accumulate", "bfloat16", "no mean", "lora"],
)
def test_every_way_of_training_goes_on_to_the_same_bytes(
    tmp_path: Path, config: PolicyTrainingConfig
) -> None:
    interrupted(tmp_path / "resume", tmp_path / "first", config, 7)
    for name, resume in (("again", tmp_path / "resume"), ("whole", None)):
        train_policy(TABLE, INDICATORS, config, None, tmp_path / name, resume=resume)
    assert files(tmp_path / "again") == files(tmp_path / "whole")


def test_a_fine_tune_goes_on_too_and_not_from_another_start(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(SHORT, policy_options={})
    mask = np.arange(len(TABLE)) % 3 > 0
    interrupted(tmp_path / "resume", tmp_path / "first", config, 5, start=whole, frame_mask=mask)
    kept = (tmp_path / "resume").read_bytes()
    for name, resume in (("again", tmp_path / "resume"), ("fresh", None)):
        train_policy(
            TABLE,
            INDICATORS,
            config,
            whole,
            tmp_path / name,
            frame_mask=mask,
            resume=resume,
            keeper=EveryStep(),
        )
    assert files(tmp_path / "again") == files(tmp_path / "fresh")
    (tmp_path / "resume").write_bytes(kept)
    keeper = EveryStep()
    with caplog.at_level(logging.WARNING):
        train_policy(
            TABLE,
            INDICATORS,
            config,
            tmp_path / "fresh",
            tmp_path / "other",
            frame_mask=mask,
            resume=tmp_path / "resume",
            keeper=keeper,
        )
    assert keeper.kept == config.steps and "beginning anew" in caplog.text


@pytest.mark.parametrize(
    "other",
    [
        replace(SHORT, seed=1),
        replace(SHORT, steps=13),
        replace(SHORT, accumulate=2),
        replace(SHORT, policy_options={**CONFIG.policy_options, "width": 16}),
    ],
    ids=["seed", "steps", "accumulate", "width"],
)
def test_a_state_of_other_settings_is_not_used(
    tmp_path: Path, other: PolicyTrainingConfig, caplog: pytest.LogCaptureFixture
) -> None:
    resume = tmp_path / "resume"
    interrupted(resume, tmp_path / "first", other, 4)
    keeper = EveryStep()
    with caplog.at_level(logging.WARNING):
        train_policy(TABLE, INDICATORS, SHORT, None, tmp_path / "second", resume=resume, keeper=keeper)
    assert keeper.kept == SHORT.steps
    assert "beginning anew" in caplog.text and str(resume) in caplog.text


@pytest.mark.parametrize("where", ["labels", "images", "mask"])
def test_a_state_of_other_data_is_not_used(tmp_path: Path, where: str) -> None:
    resume = tmp_path / "resume"
    interrupted(resume, tmp_path / "first", SHORT, 4)
    table, indicators, mask = TABLE, INDICATORS, None
    if where == "labels":
        indicators = np.roll(INDICATORS, 1)
    elif where == "images":
        table = replace(table, _episode_images=[images // 2 for images in table._episode_images])
    else:
        mask = np.arange(len(TABLE)) > 0
    keeper = EveryStep()
    train_policy(
        table, indicators, SHORT, None, tmp_path / "second", frame_mask=mask, resume=resume, keeper=keeper
    )
    assert keeper.kept == SHORT.steps


@pytest.mark.parametrize("damage", ["half", "a bit"])
def test_a_damaged_state_is_not_used_and_does_no_harm(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    resume = tmp_path / "resume"
    interrupted(resume, tmp_path / "first", SHORT, 4)
    data = bytearray(resume.read_bytes())
    if damage == "half":
        del data[len(data) // 2 :]
    else:
        data[-1000] ^= 1
    resume.write_bytes(data)
    keeper = EveryStep()
    with caplog.at_level(logging.WARNING):
        train_policy(TABLE, INDICATORS, SHORT, None, tmp_path / "again", resume=resume, keeper=keeper)
    assert keeper.kept == SHORT.steps and "beginning anew" in caplog.text
    train_policy(TABLE, INDICATORS, SHORT, None, tmp_path / "whole")
    assert files(tmp_path / "again") == files(tmp_path / "whole")


def test_where_no_state_can_be_kept_the_training_goes_on(
    tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "full").touch()
    resume = tmp_path / "full" / "resume"
    with caplog.at_level(logging.WARNING):
        train_policy(TABLE, INDICATORS, CONFIG, None, tmp_path / "out", resume=resume, keeper=EveryStep())
    assert "could not be written" in caplog.text
    assert files(tmp_path / "out") == files(whole)


def test_accumulated_batches_make_the_gradient_of_their_mean(tmp_path: Path) -> None:
    """Noise levels are drawn anew for each batch, so equal batches give nearly the same step."""
    # Every frame in each batch, nothing random but their order: twice the same batch is one batch.
    still = {**CONFIG.policy_options, "random_shift": 0, "color_jitter": 0.0}
    base = replace(
        SHORT,
        batch_size=len(TABLE),
        positive_share=None,
        indicator_dropout=0.0,
        policy_options=still,
        steps=1,
    )
    moved = {}
    for accumulate in (1, 2):
        out = tmp_path / str(accumulate)
        train_policy(TABLE, INDICATORS, replace(base, accumulate=accumulate, ema_decay=0.0), None, out)
        moved[accumulate] = load_file(out / "model.safetensors")
    torch.manual_seed(base.seed)
    start = type(load_checkpoint(tmp_path / "1").policy)(load_checkpoint(tmp_path / "1").policy.config)
    before = start.state_dict()
    one, two = (
        torch.cat([(moved[n][key] - before[key]).flatten() for key in before]).double() for n in (1, 2)
    )
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.8
    assert 0.8 < float(one.norm() / two.norm()) < 1.25


def test_a_keeper_keeps_every_few_seconds_and_never_over_its_share() -> None:
    now, spent, kept = 0.0, 0.0, []
    keeper = Keeper(every_s=5.0, share=0.03, clock=lambda: now)

    def write() -> None:
        nonlocal now, spent
        cost = 0.01 if now < 100 else 2.0
        now, spent = now + cost, spent + cost
        kept.append(now)

    while now < 1000:
        now += 0.25
        if keeper.is_due:
            keeper.keep(write)
    early = [moment for moment in kept if moment < 100]
    assert max(np.diff([0.0, *early])) <= 5.3
    late = np.diff([moment for moment in kept if moment > 110])
    assert min(late) >= 2.0 / 0.03 and spent / now < 0.035
    assert math.isclose(keeper._cost_s, 2.0)
