"""Checkpoints that look at three observations and execute four actions a chunk: ours, one of LeRobot's."""

from __future__ import annotations

from pathlib import Path

import torch
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.utils.constants import ACTION

from pipeline.policy.checkpoint import Checkpoint, load_checkpoint
from pipeline.policy.configuration_gen3_vla import gen3_features
from tests.tiny_checkpoint import HIGH, LOW, save_tiny_checkpoint

KINDS = ("gen3_vla", "vqbet")


def save_remembering(kind: str, folder: Path) -> Path:
    """Writes an untrained checkpoint of ``kind`` into ``folder``, and returns that."""
    if kind == "gen3_vla":
        save_tiny_checkpoint(folder, n_obs_steps=3, history="policy_head")
        loaded = load_checkpoint(folder)
        with torch.no_grad():
            for parameter in loaded.policy.parameters():  # some start at zero, which hides the past
                parameter.add_(0.05 * torch.randn_like(parameter))
        loaded.save(folder)
        return folder
    inputs, outputs = gen3_features(84)
    inputs = {key: feature for key, feature in inputs.items() if not key.endswith("wrist")}
    size = {
        "gpt_input_dim": 32,
        "gpt_output_dim": 32,
        "gpt_n_layer": 1,
        "gpt_n_head": 2,
        "gpt_hidden_dim": 32,
    }
    config = make_policy_config(
        "vqbet",
        **size,
        input_features=inputs,
        output_features=outputs,
        device="cpu",
        n_obs_steps=3,
        n_action_pred_token=3,
        action_chunk_size=4,
        pretrained_backbone_weights=None,
        vision_backbone="resnet18",
        crop_shape=None,
        sequentially_select=False,
    )
    torch.manual_seed(0)
    policy = get_policy_class("vqbet")(config)
    stats = {ACTION: {"min": LOW, "max": HIGH}}
    stats |= {
        key: {name: value * torch.ones(feature.shape) for name, value in {"min": -3.0, "max": 3.0}.items()}
        for key, feature in inputs.items()
    }
    Checkpoint(policy, *make_pre_post_processors(config, dataset_stats=stats)).save(folder)
    return folder
