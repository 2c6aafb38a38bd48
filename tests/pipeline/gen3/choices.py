"""Small policies of every choice, and batches for them."""

from __future__ import annotations

from typing import Any

import torch
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.episode import CAMERAS, POLICY_STATE_NAMES
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig, gen3_features
from pipeline.policy.modeling_gen3_vla import ACTION_IS_PAD, Gen3VLAPolicy
from pipeline.policy.processor_gen3_vla import make_gen3_vla_pre_post_processors
from pipeline.prompts import prompt
from pipeline.subtask_prompts import with_subtask

SIDE = 32
CHUNK = 4
TASKS = ("pick up the red cube", "pick up the blue cube")
SUBTASKS = ["reach the cube", "lift it"]

SMALL: dict[str, Any] = {
    "vision_channels": [12, 12, 12],
    "keypoints": 6,
    "map_channels": 2,
    "width": 32,
    "expert_hidden": 32,
    "expert_blocks": 2,
    "token_width": 32,
    "token_layers": 2,
    "token_heads": 2,
    "chunk_size": CHUNK,
    "n_action_steps": 2,
    "random_shift": 0,
    "color_jitter": 0.0,
}
_TOKENS = {"backbone": "transformer"}
_READS_ALL = {**_TOKENS, "conditioning": "cross_attention", "bridge": "full_sequence"}

CHOICES: dict[str, dict[str, Any]] = {
    "conv": {},
    "conv, indicator as text": {"indicator_input": "text"},
    "conv, regression": {"action_head": "regression"},
    "conv, frozen": {"training": "frozen"},
    "conv, policy head": {"history": "policy_head", "n_obs_steps": 3},
    "transformer": _TOKENS,
    "cross-attention to everything": _READS_ALL,
    "cross-attention to one vector": {**_TOKENS, "conditioning": "cross_attention"},
    "in context, everything": {**_TOKENS, "conditioning": "in_context", "bridge": "full_sequence"},
    "special token": {**_TOKENS, "bridge": "special_token"},
    "bins": {**_TOKENS, "action_head": "bins"},
    "fast": {**_TOKENS, "action_head": "fast"},
    "regression": {**_TOKENS, "action_head": "regression", "bridge": "special_token"},
    "insulated, fast": {**_READS_ALL, "training": "insulated", "backbone_tokens": "fast"},
    "insulated, bins": {**_TOKENS, "training": "insulated", "backbone_tokens": "bins"},
    "joint with tokens": {**_READS_ALL, "backbone_tokens": "fast"},
    "frozen": {**_READS_ALL, "training": "frozen"},
    "state as tokens": {**_TOKENS, "state_input": "tokens"},
    "state as text": {**_TOKENS, "state_input": "text"},
    "interleaved": {**_READS_ALL, "history": "interleaved", "n_obs_steps": 3},
    "policy head": {**_TOKENS, "history": "policy_head", "n_obs_steps": 3},
    "interleaved bins": {**_TOKENS, "action_head": "bins", "history": "interleaved", "n_obs_steps": 2},
    "indicator as text": {**_TOKENS, "indicator_input": "text"},
    "sub-tasks": {**_READS_ALL, "subtasks": SUBTASKS},
    "sub-tasks, fast": {**_TOKENS, "action_head": "fast", "subtasks": SUBTASKS},
}


def small_config(**options: Any) -> Gen3VLAConfig:
    """A configuration of a small network with these choices."""
    inputs, outputs = gen3_features(SIDE)
    return Gen3VLAConfig(input_features=inputs, output_features=outputs, device="cpu", **{**SMALL, **options})


def small_policy(seed: int = 0, **options: Any) -> Gen3VLAPolicy:
    """A policy of it, its weights from ``seed``."""
    torch.manual_seed(seed)
    return Gen3VLAPolicy(small_config(**options))


def raw_batch(config: Gen3VLAConfig, size: int = 4, seed: int = 0) -> dict[str, Any]:
    """Samples as a dataset gives them: tasks, sub-tasks, indicators and observations in turn."""
    generator = torch.Generator().manual_seed(seed)
    steps = () if config.n_obs_steps == 1 else (config.n_obs_steps,)
    state = torch.rand(size, *steps, len(POLICY_STATE_NAMES), generator=generator)
    batch: dict[str, Any] = {OBS_STATE: state, "task": [_prompt(config, i) for i in range(size)]}
    for camera in CAMERAS:
        shape = (size, *steps, 3, SIDE, SIDE)
        batch[f"{OBS_IMAGES}.{camera}"] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if steps:
        batch[f"{OBS_STATE}_is_pad"] = torch.zeros(size, *steps, dtype=torch.bool)
    batch[ACTION] = torch.rand(size, CHUNK, 7, generator=generator) * 1.6 - 0.8
    batch[ACTION_IS_PAD] = torch.zeros(size, CHUNK, dtype=torch.bool)
    return batch


def _prompt(config: Gen3VLAConfig, i: int) -> str:
    task = TASKS[i % 2]
    if config.subtasks:
        task = with_subtask(task, config.subtasks[i % len(config.subtasks)])
    return prompt(task, ("positive", "negative", None)[i % 3])


def ready(config: Gen3VLAConfig, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch through the policy's preprocessor; actions are normalised already and stay as they are."""
    preprocessor, _ = make_gen3_vla_pre_post_processors(config)
    return preprocessor(batch)


def train(policy: Gen3VLAPolicy, batch: dict[str, Any], steps: int, lr: float = 3e-3) -> list[float]:
    """Gradient steps on one batch; gives the losses."""
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=lr, weight_decay=0.0)
    torch.manual_seed(1)
    policy.train()
    losses = []
    for _ in range(steps):
        loss, _ = policy.forward(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.get_optim_params(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    policy.eval()
    return losses
