"""The witness's configuration: ACT's, and where to write."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig


@PreTrainedConfig.register_subclass("witness")
@dataclass
class WitnessConfig(ACTConfig):
    """ACT with one field more."""

    notes: str = ""
    """The file that gets a line of JSON, the batch's tasks, for each training step."""
