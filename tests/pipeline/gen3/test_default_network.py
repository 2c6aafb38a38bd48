"""The default choices are the network that there always was: same weights, losses, gradients and actions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_LANGUAGE_TOKENS, OBS_STATE

from pipeline.policy.checkpoint import Checkpoint, load_checkpoint
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig, gen3_features
from pipeline.policy.gen3.choices import BACKBONES
from pipeline.policy.modeling_gen3_vla import ACTION_IS_PAD, Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import OBS_INDICATOR, make_gen3_vla_pre_post_processors

# Recorded before there were any choices.
NAMES = "3eeea4a2cf3ed5cf4d7db858bd05c83f0dbdef634b2e9f28ea530ada1b8e4f09"
WEIGHTS = "d03427c3977eb23ecd4211992d08bfe99d0e9e9eb24fa3a12c732c3ee0036870"
RECORDED = json.loads(Path(__file__).with_name("default_network.json").read_text())

# Fields that configurations of that time did not have.
SINCE = {
    *("backbone", "action_head", "training", "backbone_tokens", "conditioning", "bridge", "state_input"),
    *("history", "indicator_input", "subtasks", "vlm", "vlm_dtype", "pretrained_backbone", "token_weight"),
    *("subtask_weight", "gripper_weight", "action_bins", "fast_scale", "fast_vocabulary", "fast_merges"),
    *("token_width", "token_layers", "token_heads", "pool_queries", "gradient_checkpointing"),
    "fast_places",
}


def default_policy() -> Gen3VLAPolicy:
    inputs, outputs = gen3_features(84)
    torch.manual_seed(7)
    return Gen3VLAPolicy(Gen3VLAConfig(input_features=inputs, output_features=outputs, device="cpu"))


def recorded_batch() -> dict[str, Any]:
    """Must be drawn in the very order in which it was when the numbers were recorded."""
    generator = torch.Generator().manual_seed(11)

    def images() -> torch.Tensor:
        return torch.randint(0, 256, (6, 3, 84, 84), dtype=torch.uint8, generator=generator)

    images()
    wrist = images()
    batch: dict[str, Any] = {OBS_STATE: torch.rand(6, 15, generator=generator)}
    batch[OBS_LANGUAGE_TOKENS] = torch.randint(0, 512, (6, 16), generator=generator)
    batch[OBS_INDICATOR] = torch.randint(-1, 2, (6,), generator=generator)
    batch[ACTION] = torch.rand(6, 8, 7, generator=generator) * 2 - 1
    batch[ACTION_IS_PAD] = torch.rand(6, 8, generator=generator) < 0.2
    batch[f"{OBS_IMAGES}.table"] = images()
    return {**batch, f"{OBS_IMAGES}.wrist": wrist}


def test_parameters_have_the_names_shapes_and_first_values_of_old() -> None:
    state = default_policy().state_dict()
    names = "\n".join(f"{name} {tuple(value.shape)}" for name, value in state.items())
    assert hashlib.sha256(names.encode()).hexdigest() == NAMES
    values = b"".join(value.contiguous().numpy().tobytes() for value in state.values())
    assert hashlib.sha256(values).hexdigest() == WEIGHTS


def test_loss_gradients_and_actions_are_those_of_old() -> None:
    policy, batch = default_policy(), recorded_batch()
    torch.manual_seed(3)
    loss, _ = policy.train().forward(batch)
    loss.backward()
    # Equal to the last bit on the machine that recorded them; others sum in another order.
    assert abs(float(loss.detach()) - RECORDED["loss"]) < 1e-6
    norms = [float(p.grad.norm()) for p in policy.parameters() if p.grad is not None]
    np.testing.assert_allclose(norms, RECORDED["gradient_norms"], rtol=1e-4, atol=1e-7)
    torch.manual_seed(4)
    np.testing.assert_allclose(policy.predict_action_chunk(batch).numpy(), RECORDED["chunk"], atol=2e-6)
    policy.config.guidance = 2.0
    torch.manual_seed(4)
    np.testing.assert_allclose(policy.predict_action_chunk(batch).numpy(), RECORDED["guided"], atol=5e-6)


def test_a_checkpoint_of_old_loads(tmp_path: Path) -> None:
    policy = default_policy()
    Checkpoint(policy, *make_gen3_vla_pre_post_processors(policy.config)).save(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert set(config) >= SINCE
    path.write_text(json.dumps({key: value for key, value in config.items() if key not in SINCE}))
    loaded = load_checkpoint(tmp_path).policy
    assert loaded.config.backbone == next(iter(BACKBONES)) == "conv"
    batch, noise = recorded_batch(), torch.randn(6, 8, 7)
    assert torch.equal(loaded.predict_action_chunk(batch, noise), policy.predict_action_chunk(batch, noise))
