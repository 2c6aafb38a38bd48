"""Training a policy from a table of frames, and which frames a batch holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from pipeline.action_statistics import action_statistics
from pipeline.episode import POLICY_STATE_NAMES
from pipeline.errors import InputError
from pipeline.policy.checkpoint import load_checkpoint
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy
from pipeline.policy.runner import PolicyRunner
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from tests.workflows.killed_policy_training import OPTIONS, SIZE, TABLE
from workflows.batch_sampling import make_sampler
from workflows.policy_training import (
    PolicyTrainingConfig,
    TrainingResult,
    learning_rate_factor,
    train_policy,
)

QUICK = PolicyTrainingConfig(steps=12, batch_size=8, warmup_steps=2, policy_options=OPTIONS)
ALTERNATING = np.array([POSITIVE, NEGATIVE] * (len(TABLE) // 2), dtype=np.int8)


def train(out: Path, config: PolicyTrainingConfig = QUICK, **options: Any) -> TrainingResult:
    indicators = options.pop("indicators", ALTERNATING)
    return train_policy(TABLE, indicators, config, options.pop("start", None), out, **options)


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


# Sampling.


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_batches_hold_the_share_of_positives(
    positives: int, others: int, share: float, size: int, seed: int
) -> None:
    indicators = np.array([POSITIVE] * positives + [NEGATIVE] * others, dtype=np.int8)
    sampler = make_sampler(indicators, None, share, np.random.default_rng(seed))
    batches = [sampler.draw(size) for _ in range(5)]
    assert all(len(batch) == size for batch in batches)
    drawn = sum(int((indicators[batch] == POSITIVE).sum()) for batch in batches)
    assert abs(drawn - 5 * size * share) <= 1.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([POSITIVE, NEGATIVE, NONE]), min_size=1, max_size=50), st.data())
def test_every_allowed_frame_comes_up_in_turn_and_no_other(codes: list[int], data: st.DataObject) -> None:
    indicators = np.array(codes, dtype=np.int8)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(codes), max_size=len(codes))))
    mask[data.draw(st.integers(0, len(codes) - 1))] = True
    sampler = make_sampler(indicators, mask, None, np.random.default_rng(0))
    drawn = np.concatenate([sampler.draw(7) for _ in range(20)])
    counts = np.bincount(drawn, minlength=len(codes))
    assert (counts[~mask] == 0).all()
    assert counts[mask].max() - counts[mask].min() <= 1


@pytest.mark.parametrize("code", [POSITIVE, NEGATIVE, NONE])
def test_one_kind_of_frames_is_sampled_uniformly_whatever_the_share(code: int) -> None:
    indicators = np.full(10, code, dtype=np.int8)
    drawn = make_sampler(indicators, None, 0.7, np.random.default_rng(0)).draw(20)
    assert (np.bincount(drawn) == 2).all()


def test_masks_that_do_not_fit_or_leave_nothing_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="no frames"):
        make_sampler(ALTERNATING, np.zeros(len(ALTERNATING), dtype=bool), None, rng)
    with pytest.raises(InputError, match="frame mask"):
        make_sampler(ALTERNATING, np.ones(3, dtype=bool), None, rng)
    with pytest.raises(InputError, match="int8"):
        make_sampler(ALTERNATING.astype(np.int64), None, None, rng)


# Training.


def test_training_lowers_the_loss_and_the_policy_reads_the_picture(tmp_path: Path) -> None:
    config = replace(
        QUICK,
        steps=150,
        batch_size=16,
        learning_rate=3e-3,
        # One action a chunk: a picture says nothing of the speeds that follow.
        policy_options={
            **OPTIONS,
            "random_shift": 0,
            "color_jitter": 0.0,
            "chunk_size": 1,
            "n_action_steps": 1,
        },
    )
    calls: list[tuple[int, int, float]] = []
    result = train(tmp_path, config, progress=lambda step, total, loss: calls.append((step, total, loss)))
    assert result.final_loss < 0.7 * result.loss_curve[0][1]
    assert calls[-1] == (150, 150, result.final_loss)
    assert [step for step, _, _ in calls] == sorted({step for step, _, _ in calls})
    speeds = []
    for brightness in (0, 255):
        runner = PolicyRunner(tmp_path, indicator=None)
        runner.reset(TABLE.tasks[0], 0)
        observation: dict[str, Any] = dict.fromkeys(POLICY_STATE_NAMES, 0.0) | {"tool.qx": 1.0}
        for camera in TABLE.cameras:
            observation[camera] = np.full((SIZE, SIZE, 3), brightness, dtype=np.uint8)
        speeds.append(np.mean([runner.act(observation)[0] for _ in range(12)]))
    assert speeds[1] - speeds[0] > 0.3


def test_the_same_seed_gives_the_same_checkpoint_and_leaves_torch_as_it_was(tmp_path: Path) -> None:
    before = torch.get_rng_state(), torch.get_num_threads()
    for name in ("first", "again"):
        train(tmp_path / name)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_num_threads()
    train(tmp_path / "other", replace(QUICK, seed=1))
    first, again, other = (weights(tmp_path / name) for name in ("first", "again", "other"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    files = {path.name for path in (tmp_path / "first").iterdir()}
    assert files >= {"config.json", "model.safetensors", "training.json", "policy_preprocessor.json"}
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_same_number_of_threads_gives_the_same_weights(tmp_path: Path) -> None:
    """Threads that share an operation add in another order than one does, but always in the same one."""
    for name in ("first", "again"):
        train(tmp_path / name, replace(QUICK, threads=2))
    first, again = (weights(tmp_path / name) for name in ("first", "again"))
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_training_json_says_what_was_done(tmp_path: Path) -> None:
    mask = ALTERNATING == POSITIVE
    result = train(tmp_path, frame_mask=mask)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["config"]["steps"] == 12
    assert record["config"]["policy_options"]["width"] == 32
    assert record["frames"] == result.frames == mask.sum()
    assert record["loss_curve"][-1] == [12, result.final_loss]
    assert result.samples_per_s > 0


def test_fine_tuning_keeps_the_statistics_and_changes_the_weights(tmp_path: Path) -> None:
    train(tmp_path / "base")
    louder = replace(TABLE, action=TABLE.action * 3)
    config = replace(QUICK, policy_options={}, learning_rate=1e-4, ema_decay=0.0)
    train_policy(louder, ALTERNATING, config, tmp_path / "base", tmp_path / "tuned")
    (name,) = [path.name for path in (tmp_path / "base").glob("policy_preprocessor_*normalizer*.safetensors")]
    assert (tmp_path / "base" / name).read_bytes() == (tmp_path / "tuned" / name).read_bytes()
    base, tuned = weights(tmp_path / "base"), weights(tmp_path / "tuned")
    moved = torch.stack([(base[key] - tuned[key]).abs().max() for key in base])
    assert 0 < moved.max() < 0.01


def test_a_mask_keeps_other_frames_out_of_weights_and_statistics(tmp_path: Path) -> None:
    mask = ALTERNATING == POSITIVE
    broken = replace(TABLE, action=np.where(mask[:, None], TABLE.action, 1e6).astype(np.float32))
    config = replace(QUICK, policy_options={**OPTIONS, "chunk_size": 1, "n_action_steps": 1})
    for name, table in (("clean", TABLE), ("broken", broken)):
        train_policy(table, ALTERNATING, config, None, tmp_path / name, frame_mask=mask)
    clean, again = weights(tmp_path / "clean"), weights(tmp_path / "broken")
    assert all(torch.equal(clean[key], again[key]) for key in clean)


def test_indicator_dropout_decides_what_the_prompt_slot_learns(tmp_path: Path) -> None:
    row = "expert.reading.indicator.weight"
    moved = {}
    for dropout in (0.0, 1.0):
        config = replace(QUICK, indicator_dropout=dropout, ema_decay=0.0, weight_decay=0.0)
        train(tmp_path / str(dropout), config)
        policy_config = load_checkpoint(tmp_path / str(dropout)).policy.config
        torch.manual_seed(config.seed)  # training begins with these very weights
        start = Gen3VLAPolicy(policy_config).state_dict()[row]
        moved[dropout] = (weights(tmp_path / str(dropout))[row] - start).abs().sum(1) > 0
    assert moved[0.0].tolist() == [False, True, True]
    assert moved[1.0].tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"positive_share": 1.5}, "positive_share"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"indicator_dropout": -0.1}, "indicator_dropout"),
        ({"accumulate": 0}, "accumulate"),
        ({"lora_rank": -1}, "lora_rank"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"precision": "float16"}, "float16"),
        ({"policy_type": ""}, "policy_type"),
    ],
)
def test_contradictory_settings_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        PolicyTrainingConfig(**options)


def test_wrong_inputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="indicators"):
        train(tmp_path, indicators=ALTERNATING[1:])
    with pytest.raises(InputError, match="from scratch"):
        train(tmp_path, start=tmp_path)
    with pytest.raises(InputError, match="not a policy checkpoint"):
        train(tmp_path, replace(QUICK, policy_options={}), start=tmp_path / "nowhere")
    with pytest.raises(InputError, match="depth"):
        train(tmp_path, replace(QUICK, policy_options={"depth": 3}))
    groups = replace(QUICK, policy_type="act", policy_options={"optimizer_lr_backbone": 1e-5}, lora_rank=2)
    with pytest.raises(InputError, match="no effect on low-rank updates"):
        train(tmp_path, groups)
    with pytest.raises(InputError, match="diverged"):
        train(tmp_path, replace(QUICK, learning_rate=1e30, gradient_clip=1e30))


def test_action_statistics_are_those_of_numpy() -> None:
    stats = action_statistics(TABLE.action)
    assert np.allclose(stats["q01"], np.quantile(TABLE.action, 0.01, axis=0), atol=1e-6)
    assert np.allclose(stats["std"], TABLE.action.std(0), atol=1e-6)
    assert all(value.shape == (7,) and value.dtype == torch.float32 for value in stats.values())


@given(st.integers(1, 500), st.integers(0, 600))
def test_the_learning_rate_warms_up_and_decays(steps: int, warmup: int) -> None:
    config = PolicyTrainingConfig(steps=steps, warmup_steps=warmup)
    factors = [learning_rate_factor(step, config) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    after = factors[min(warmup, steps - 1) :]
    assert after == sorted(after, reverse=True)
