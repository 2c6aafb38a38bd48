"""Policies of real size with random weights, and batches for them: nothing is downloaded."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import (
    ACTION,
    OBS_IMAGES,
    OBS_LANGUAGE_ATTENTION_MASK,
    OBS_LANGUAGE_TOKENS,
    OBS_STATE,
)

from pipeline.episode import ACTION_NAMES, CAMERAS, POLICY_STATE_NAMES
from pipeline.policy.configuration_gen3_vla import gen3_features
from pipeline.policy.hub_files import local_only
from tests.tiny_smolvla import build_smolvlm

POLICIES = ("gen3_vla", "smolvla", "pi05", "pi0")

# SmolVLM2-500M (arXiv 2504.05299): SigLIP-base at 512 px under SmolLM2-360M, 64 tokens an image.
_VISION_500M = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
_TEXT_500M = {
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "vocab_size": 49280,
    "max_position_embeddings": 8192,
    "initializer_range": 0.02,
}
# Knowledge insulation: tokens train the backbone, and the expert attends to its keys and values.
_GEN3: dict[str, Any] = {
    "backbone": "vlm",
    "conditioning": "cross_attention",
    "bridge": "full_sequence",
    "training": "insulated",
    "backbone_tokens": "fast",
    "fast_vocabulary": 1024,
    "token_width": 768,
    "token_layers": 8,
    "token_heads": 12,
    "chunk_size": 16,
    "n_action_steps": 8,
}
_GEN3_TINY = {"token_width": 32, "token_layers": 2, "token_heads": 2, "chunk_size": 4, "n_action_steps": 2}
_SMOLVLA_TINY = {"num_vlm_layers": 2, "chunk_size": 4, "n_action_steps": 2, "num_steps": 2} | {
    "resize_imgs_with_padding": (32, 32),
    "expert_width_multiplier": 0.5,
}
_PI: dict[str, Any] = {"dtype": "bfloat16", "gradient_checkpointing": True}


def write_backbone(folder: Path, *, tiny: bool) -> Path:
    """A SmolVLM without weights in ``folder``: 0.5 G parameters, or ``tiny``; its tokenizer is a stand-in."""
    build_smolvlm(folder)
    (folder / "model.safetensors").unlink()
    if not tiny:
        path = folder / "config.json"
        shape = json.loads(path.read_text())
        shape["vision_config"] |= _VISION_500M
        shape["text_config"] |= _TEXT_500M
        path.write_text(json.dumps(shape | {"scale_factor": 4}))
    return folder


def build_policy(
    policy_type: str, backbone: Path, options: Mapping[str, Any], image_size: int, device: str, *, tiny: bool
) -> PreTrainedPolicy:
    """A new policy on ``device``, two cameras of ``image_size``, with ``options`` over this benchmark's own.

    π0 and π0.5 have one size, about 4 G parameters, which are made in main memory first.
    """
    own: dict[str, dict[str, Any]] = {
        "gen3_vla": {**_GEN3, **(_GEN3_TINY if tiny else {}), "vlm": str(backbone)},
        "smolvla": {"vlm_model_name": str(backbone), **(_SMOLVLA_TINY if tiny else {})},
        "pi05": _PI,
        "pi0": _PI,
    }
    inputs, outputs = gen3_features(image_size)
    with local_only(True), contextlib.redirect_stdout(io.StringIO()):
        config = make_policy_config(
            policy_type,
            input_features=inputs,
            output_features=outputs,
            device=device,
            **{**own[policy_type], **options},
        )
        config.validate_features()
        policy: PreTrainedPolicy = get_policy_class(policy_type)(config).to(device)
    return policy


def random_batch(config: PreTrainedConfig, size: int, image_size: int, device: str) -> dict[str, Any]:
    """A batch as ``config``'s policy takes it in training, of random pixels and numbers, on ``device``."""
    chunk = len(config.action_delta_indices)
    batch: dict[str, Any] = {
        OBS_STATE: torch.rand(size, len(POLICY_STATE_NAMES)),
        ACTION: torch.rand(size, chunk, len(ACTION_NAMES)) * 1.6 - 0.8,
        f"{ACTION}_is_pad": torch.zeros(size, chunk, dtype=torch.bool),
        "task": ["pick up the red cube. Advantage: positive"] * size,
    }
    for camera in CAMERAS:
        pixels = torch.randint(0, 256, (size, 3, image_size, image_size), dtype=torch.uint8)
        batch[f"{OBS_IMAGES}.{camera}"] = pixels
    if config.type == "gen3_vla":
        ready: dict[str, Any] = make_pre_post_processors(config)[0](batch)
        return ready
    # The others' processors name tokenizers of a hub: the tokens that these would give are drawn here. π0.5
    # writes the state as words and pads all to the longest, which is what its own tokenizer step does.
    length = config.tokenizer_max_length
    batch[OBS_LANGUAGE_TOKENS] = torch.randint(4, 300, (size, length))
    batch[OBS_LANGUAGE_ATTENTION_MASK] = torch.ones(size, length, dtype=torch.bool)
    for camera in CAMERAS:
        batch[f"{OBS_IMAGES}.{camera}"] = batch[f"{OBS_IMAGES}.{camera}"].float() / 255
    return {
        key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()
    }


def first_sample(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The first of a batch's samples, as a batch of one."""
    size = len(batch[OBS_STATE])
    return {
        key: value[:1] if isinstance(value, torch.Tensor | list) and len(value) == size else value
        for key, value in batch.items()
    }


@contextlib.contextmanager
def nothing_twice(policy: PreTrainedPolicy) -> Iterator[None]:
    """Without gradient checkpointing, whatever the policy calls it: what it computes again does not count."""
    names = ("gradient_checkpointing", "gradient_checkpointing_enabled")
    found = [(m, n) for m in policy.modules() for n in names if getattr(m, n, None) is True]
    for module, name in found:
        setattr(module, name, False)
    try:
        yield
    finally:
        for module, name in found:
            setattr(module, name, True)
