"""A tiny untrained gen3_vla checkpoint, as ``recap policy`` and rollouts load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.utils.constants import ACTION

from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig, gen3_features
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy

LOW = torch.tensor([-0.2, -0.2, -0.2, -0.5, -0.5, -1.0, 0.0])
HIGH = torch.tensor([0.2, 0.2, 0.2, 0.5, 0.5, 1.0, 1.0])
STATS = {ACTION: {"q01": LOW, "q99": HIGH}}


def save_tiny_checkpoint(folder: Path, **options: Any) -> Path:
    """Writes it into ``folder`` and returns that; its actions lie between :data:`LOW` and :data:`HIGH`."""
    torch.manual_seed(0)
    inputs, outputs = gen3_features(84)
    config = Gen3VLAConfig(input_features=inputs, output_features=outputs, device="cpu", **options)
    Checkpoint(Gen3VLAPolicy(config), *make_pre_post_processors(config, dataset_stats=STATS)).save(folder)
    return folder
