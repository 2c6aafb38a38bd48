"""The policy ``gen3_vla`` and its processors: prompts, images, states, flow, and LeRobot's own doors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_TOKENS, OBS_STATE
from safetensors.torch import load_file, save_file

from pipeline.episode import POLICY_STATE_NAMES
from pipeline.errors import InputError
from pipeline.policy.checkpoint import Checkpoint, load_checkpoint
from pipeline.policy.configuration_gen3_vla import QUATERNION_NAMES, Gen3VLAConfig, gen3_features
from pipeline.policy.encoders_gen3_vla import StateEncoder, random_shift, rotation_columns, scale_images
from pipeline.policy.modeling_gen3_vla import ACTION_IS_PAD, Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import (
    OBS_INDICATOR,
    hash_words,
    make_gen3_vla_pre_post_processors,
    widen_action_range,
)
from pipeline.prompts import prompt
from tests.tiny_checkpoint import save_tiny_checkpoint

TASKS = (
    "pick up the red cube",
    "pick up the blue cube",
    "place the red cube on the blue cube",
    "place the blue cube on the red cube",
)
SMALL: dict[str, Any] = {
    "vision_channels": [8, 8, 8],
    "width": 32,
    "expert_hidden": 32,
    "expert_blocks": 2,
    "keypoints": 4,
    "map_channels": 2,
}
STATS = {
    ACTION: {
        "q01": torch.tensor([-0.2, -0.2, -0.2, 0.0, 0.0, -1.0, 0.0]),
        "q99": torch.tensor([0.2, 0.1, 0.2, 0.0, 0.0, 1.0, 1.0]),
    }
}


def small_config(**options: Any) -> Gen3VLAConfig:
    inputs, outputs = gen3_features(84)
    return Gen3VLAConfig(input_features=inputs, output_features=outputs, device="cpu", **{**SMALL, **options})


def small_policy(**options: Any) -> Gen3VLAPolicy:
    torch.manual_seed(0)
    return Gen3VLAPolicy(small_config(**options))


def raw_batch(prompts: list[str], seed: int = 0, *, actions: bool = True) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    size = len(prompts)
    state = torch.zeros(size, len(POLICY_STATE_NAMES))
    state[:, POLICY_STATE_NAMES.index("tool.qx")] = 1.0
    batch: dict[str, Any] = {OBS_STATE: state, "task": prompts}
    for camera in ("table", "wrist"):
        batch[f"observation.images.{camera}"] = torch.randint(
            0, 256, (size, 3, 84, 84), dtype=torch.uint8, generator=generator
        )
    if actions:
        batch[ACTION] = torch.rand(size, 8, 7, generator=generator) * 2 - 1
        batch[ACTION_IS_PAD] = torch.zeros(size, 8, dtype=torch.bool)
    return batch


def ready(batch: dict[str, Any]) -> dict[str, Any]:
    preprocessor, _ = make_gen3_vla_pre_post_processors(small_config())
    return preprocessor(batch)


def test_default_size_is_that_of_a_small_network() -> None:
    inputs, outputs = gen3_features(84)
    policy = Gen3VLAPolicy(Gen3VLAConfig(input_features=inputs, output_features=outputs, device="cpu"))
    assert 1e6 < sum(p.numel() for p in policy.parameters()) < 3e6


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"n_action_steps": 9}, "n_action_steps"),
        ({"state_components": ["elbow"]}, "elbow"),
        ({"state_components": ["tool.qw", "tool.z"]}, "all four"),
        ({"vision_channels": [8, 8]}, "vision_channels"),
        ({"noise_samples": 0}, "noise_samples"),
        ({"prediction": "noise"}, "prediction"),
        ({"guidance": -1.0}, "guidance"),
    ],
)
def test_contradictory_settings_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        small_config(**options)


def test_features_that_the_network_cannot_take_are_refused() -> None:
    config = small_config()
    config.input_features = {k: v for k, v in (config.input_features or {}).items() if k != OBS_STATE}
    with pytest.raises(ValueError, match=r"observation\.state"):
        Gen3VLAPolicy(config)


# Text.


def test_the_words_of_the_tasks_do_not_collide() -> None:
    words = sorted({word for task in TASKS for word in task.split()})
    buckets = {hash_words(word, 512, 1) for word in words}
    assert len(buckets) == len(words)


@given(st.text(max_size=60), st.integers(2, 600), st.integers(1, 20))
def test_hashed_words_are_numbers_in_range(text: str, buckets: int, length: int) -> None:
    hashed = hash_words(text, buckets, length)
    assert len(hashed) == length
    assert all(0 <= bucket < buckets for bucket in hashed)
    filled = [bucket for bucket in hashed if bucket]
    assert list(hashed) == filled + [0] * (length - len(filled))


def test_the_processor_splits_task_and_indicator() -> None:
    prompts = [prompt(TASKS[0], None), prompt(TASKS[0], "positive"), prompt(TASKS[0], "negative")]
    batch = ready(raw_batch(prompts))
    assert batch[OBS_INDICATOR].tolist() == [-1, 1, 0]
    assert batch[OBS_INDICATOR].dtype == batch[OBS_LANGUAGE_TOKENS].dtype == torch.int64
    assert (batch[OBS_LANGUAGE_TOKENS] == batch[OBS_LANGUAGE_TOKENS][0]).all()


def test_a_batch_without_prompts_is_refused() -> None:
    batch = raw_batch([TASKS[0]])
    del batch["task"]
    with pytest.raises(InputError, match="no task text"):
        ready(batch)


def test_word_order_reaches_the_network() -> None:
    encoder = small_policy().encoder.text
    tokens = ready(raw_batch(list(TASKS[2:])))[OBS_LANGUAGE_TOKENS]
    first, second = encoder(tokens)
    assert not torch.allclose(first, second, atol=1e-3)


# Actions.


@settings(max_examples=30)
@given(st.lists(st.floats(-3, 3, width=32), min_size=7, max_size=7))
def test_actions_survive_scaling_except_for_their_tails(values: list[float]) -> None:
    preprocessor, postprocessor = make_gen3_vla_pre_post_processors(small_config(), STATS)
    batch = raw_batch([TASKS[0]])
    batch[ACTION] = torch.tensor(values).expand(1, 8, 7).clone()
    scaled = preprocessor(batch)[ACTION]
    assert scaled.abs().max() <= 1.0
    wide = widen_action_range(STATS[ACTION], 0.02)
    expected = torch.tensor(values).clamp(wide["q01"], wide["q99"])
    assert torch.allclose(postprocessor(scaled)[0, 0], expected, atol=1e-5)


def test_an_axis_that_nobody_moved_does_not_blow_up_noise() -> None:
    wide = widen_action_range(STATS[ACTION], 0.02)
    assert (wide["q99"] - wide["q01"]).min() >= 0.02 - 1e-7
    assert torch.allclose(wide["q99"][0], torch.tensor(0.2))


# Images and state.


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 4), st.integers(0, 2**31))
def test_random_shift_moves_each_image_whole(pixels: int, seed: int) -> None:
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (5, 3, 20, 24), dtype=torch.uint8)
    shifted = random_shift(images, pixels)
    for before, after in zip(images, shifted, strict=True):
        moves = [
            torch.equal(
                after[:, pixels : 20 - pixels, pixels : 24 - pixels],
                before[:, pixels - down : 20 - pixels - down, pixels - right : 24 - pixels - right],
            )
            for down in range(-pixels, pixels + 1)
            for right in range(-pixels, pixels + 1)
        ]
        assert any(moves)


def test_bytes_and_floats_are_scaled_alike() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.allclose(scale_images(images, 0.0), scale_images(images.float() / 255, 0.0), atol=1e-6)
    assert scale_images(images, 0.0).abs().max() <= 1.0
    torch.manual_seed(0)
    jittered = scale_images(images, 0.1)
    assert 0.02 < (jittered - scale_images(images, 0.0)).abs().max() < 0.21


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_rotation_columns_are_those_of_the_rotation_matrix(values: list[float]) -> None:
    quaternion = torch.tensor([values], dtype=torch.float64)
    columns = rotation_columns(quaternion)[0].view(2, 3)
    assert torch.allclose(columns @ columns.T, torch.eye(2, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(columns.flatten(), rotation_columns(-quaternion)[0], atol=1e-12)
    w, *xyz = (quaternion / quaternion.norm())[0]
    axis = torch.stack(xyz)
    for column, unit in zip(columns, torch.eye(3, dtype=torch.float64), strict=False):
        # Rodrigues: v + 2 w (q x v) + 2 q x (q x v)
        once = torch.linalg.cross(axis, unit)
        turned = unit + 2 * w * once + 2 * torch.linalg.cross(axis, once)
        assert torch.allclose(column, turned, atol=1e-9)


def test_only_the_named_state_components_are_seen() -> None:
    state = torch.rand(3, len(POLICY_STATE_NAMES))
    changed = state.clone()
    changed[:, POLICY_STATE_NAMES.index("tool.x")] += 1.0
    blind = StateEncoder(small_config())
    seeing = StateEncoder(small_config(state_components=["tool.x", "joint_2.pos", *QUATERNION_NAMES]))
    assert blind(state).shape == (3, blind.feature_size)
    assert seeing(state).shape == (3, seeing.feature_size)
    assert torch.equal(blind(state), blind(changed))
    assert not torch.equal(seeing(state), seeing(changed))


# Loss and actions.


def test_padded_steps_do_not_count() -> None:
    policy = small_policy(random_shift=0, color_jitter=0.0).train()
    batch = ready(raw_batch([TASKS[0]] * 3))

    def losses(padded: int) -> torch.Tensor:
        batch[ACTION_IS_PAD][:] = torch.arange(8) >= 8 - padded
        torch.manual_seed(1)
        return policy.forward(batch, reduction="none")[0].detach()

    whole = losses(0)
    assert whole.shape == (3,)
    assert (whole > 0).all()
    assert not torch.allclose(whole, losses(4))
    # The target of a padded step is not looked at, only what the noise mixes into the network's input.
    assert (losses(8) == 0).all()
    assert policy.forward(batch)[0] == 0.0


def test_mean_loss_is_the_mean_of_sample_losses_and_wrong_reductions_are_refused() -> None:
    policy = small_policy().train()
    batch = ready(raw_batch([TASKS[0], TASKS[1]]))
    torch.manual_seed(3)
    mean, info = policy.forward(batch)
    torch.manual_seed(3)
    each, _ = policy.forward(batch, reduction="none")
    assert torch.allclose(mean, each.mean(), atol=1e-6)
    assert info["loss"] == pytest.approx(float(mean.detach()))
    with pytest.raises(ValueError, match="reduction"):
        policy.forward(batch, reduction="sum")


def test_every_parameter_gets_a_gradient() -> None:
    policy = small_policy().train()
    prompts = [prompt(TASKS[2], None), prompt(TASKS[2], "positive"), prompt(TASKS[3], "negative")]
    loss, _ = policy.forward(ready(raw_batch(prompts)))
    loss.backward()
    assert [name for name, p in policy.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_chunks_depend_on_task_indicator_and_noise_alone() -> None:
    policy = small_policy()
    noise = torch.randn(1, 8, 7)

    def chunk(text: str, seed: int = 0) -> torch.Tensor:
        return policy.predict_action_chunk(ready(raw_batch([text], seed, actions=False)), noise=noise)

    first = chunk(TASKS[0])
    assert first.shape == (1, 8, 7)
    assert torch.equal(first, chunk(TASKS[0]))
    for other in (chunk(TASKS[1]), chunk(prompt(TASKS[0], "positive")), chunk(TASKS[0], seed=1)):
        assert not torch.equal(first, other)


@pytest.mark.parametrize("prediction", ["velocity", "actions"])
def test_guidance_extrapolates_from_the_bare_task(prediction: str) -> None:
    policy = small_policy(num_inference_steps=1, prediction=prediction)
    noise = torch.randn(1, 8, 7)

    def chunk(text: str, guidance: float) -> torch.Tensor:
        policy.config.guidance = guidance
        return policy.predict_action_chunk(ready(raw_batch([text], actions=False)), noise=noise)

    bare, positive = chunk(TASKS[0], 1.0), chunk(prompt(TASKS[0], "positive"), 1.0)
    guided = chunk(prompt(TASKS[0], "positive"), 2.0)
    assert torch.allclose(guided, bare + 2.0 * (positive - bare), atol=1e-5)
    assert torch.equal(chunk(TASKS[0], 2.0), bare)


def test_chunks_are_executed_in_part() -> None:
    policy = small_policy(n_action_steps=3)
    batch = ready(raw_batch([TASKS[0]], actions=False))
    torch.manual_seed(0)
    chunk = policy.predict_action_chunk(batch)
    torch.manual_seed(0)
    actions = [policy.select_action(batch) for _ in range(4)]
    for step in range(3):
        assert torch.equal(actions[step], chunk[:, step])
    assert not torch.equal(actions[3], chunk[:, 3])
    policy.reset()
    torch.manual_seed(0)
    assert torch.equal(policy.select_action(batch), chunk[:, 0])


def test_the_velocity_leads_to_the_actions_it_was_trained_on() -> None:
    policy = small_policy(random_shift=0, color_jitter=0.0, chunk_size=2, n_action_steps=1, width=64)
    batch = ready(raw_batch([TASKS[0]] * 4))
    batch[ACTION] = torch.tensor([0.6, -0.6, 0.3, 0.0, -0.3, 0.9, -0.9]).expand(4, 2, 7).clone()
    batch[ACTION_IS_PAD] = batch[ACTION_IS_PAD][:, :2]
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=3e-3)
    torch.manual_seed(0)
    policy.train()
    for _ in range(250):
        loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (policy.predict_action_chunk(batch) - batch[ACTION]).abs().mean() < 0.2


def test_a_small_network_learns_two_tasks_and_both_indicators() -> None:
    policy = small_policy(random_shift=0, color_jitter=0.0, prediction="actions")
    prompts = [prompt(task, name) for task in TASKS[:2] for name in ("positive", "negative", None)]
    batch = ready(raw_batch(prompts, seed=5))
    for key in ("table", "wrist"):
        batch[f"observation.images.{key}"][:] = batch[f"observation.images.{key}"][0].clone()
    goals = torch.tensor([0.8, -0.8, 0.2, -0.4, 0.5, -0.1])
    batch[ACTION] = goals[:, None, None].expand(6, 8, 7).clone()
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=3e-3)
    torch.manual_seed(0)
    policy.train()
    for _ in range(250):
        loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = policy.predict_action_chunk(batch).mean((1, 2))
    assert (predicted - goals).abs().max() < 0.15


# Checkpoints, through LeRobot's own functions.


def test_a_checkpoint_comes_back_the_same(tmp_path: Path) -> None:
    policy = small_policy()
    preprocessor, postprocessor = make_gen3_vla_pre_post_processors(policy.config, STATS)
    Checkpoint(policy, preprocessor, postprocessor).save(tmp_path / "checkpoint")
    config = PreTrainedConfig.from_pretrained(tmp_path / "checkpoint")
    assert config == policy.config
    plain = get_policy_class(config.type).from_pretrained(tmp_path / "checkpoint")
    before, after = make_pre_post_processors(config, pretrained_path=str(tmp_path / "checkpoint"))
    loaded = load_checkpoint(tmp_path / "checkpoint")
    noise = torch.randn(1, 8, 7)
    text = prompt(TASKS[3], "negative")
    outcomes = []
    for network, inputs, outputs in (
        (policy, preprocessor, postprocessor),
        (plain, before, after),
        (loaded.policy, loaded.preprocessor, loaded.postprocessor),
    ):
        chunk = network.predict_action_chunk(inputs(raw_batch([text], actions=False)), noise=noise)
        outcomes.append(outputs(chunk))
    assert torch.equal(outcomes[0], outcomes[1])
    assert torch.equal(outcomes[0], outcomes[2])


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"]
)
@pytest.mark.parametrize("kept", [0, 40, 0.5])
def test_a_damaged_file_of_a_checkpoint_is_named(tmp_path: Path, name: str, kept: float) -> None:
    path = save_tiny_checkpoint(tmp_path / "checkpoint") / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
    with pytest.raises(InputError, match=re.escape(str(path))) as caught:
        load_checkpoint(path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json"])
def test_a_checkpoint_of_other_contents_is_refused(tmp_path: Path, name: str) -> None:
    path = save_tiny_checkpoint(tmp_path / "checkpoint") / name
    for text in ("[]", "{}", '{"type": "nothing"}'):
        path.write_text(text)
        with pytest.raises(InputError, match=re.escape(str(path.parent))):
            load_checkpoint(path.parent)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_checkpoint(tmp_path / "checkpoint")
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({name: torch.zeros(3, *value.shape) for name, value in weights.items()}, path)
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_checkpoint(folder)


def test_make_policy_config_takes_the_fields() -> None:
    assert make_policy_config("gen3_vla", device="cpu", chunk_size=16).action_delta_indices == list(range(16))
