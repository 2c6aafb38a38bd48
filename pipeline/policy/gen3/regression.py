"""The regression head: pose by mean squared error, gripper by cross-entropy (RoboVLMs)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.encoding import ActionHead, Reading


class RegressionHead(ActionHead):
    """An MLP from one vector to the chunk; the last component of an action is the gripper's.

    l = sum_i MSE(pose_i) + lambda BCE(gripper_i), RoboVLMs' loss of continuous actions, lambda =
    ``gripper_weight``. A gripper in [-1, 1] is the chance (g + 1) / 2 of being closed.
    """

    def __init__(self, config: Gen3VLAConfig, width: int) -> None:
        """``width``: of the memory's vector."""
        super().__init__()
        assert config.action_feature is not None
        self.config = config
        self.shape = (config.chunk_size, config.action_feature.shape[0])
        self.indicator = nn.Embedding(3, width) if config.indicator_input == "slot" else None
        hidden = config.expert_hidden
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, self.shape[0] * self.shape[1]),
        )

    def forward(self, reading: Reading) -> Tensor:
        """Poses and the gripper's logit, (B, T, A)."""
        vector = reading.memory.one_vector()
        if self.indicator is not None:
            vector = vector + self.indicator(reading.indicator)
        return self.mlp(vector).unflatten(1, self.shape)

    def errors(self, reading: Reading, actions: Tensor, counted: Tensor) -> Tensor:
        """See :class:`ActionHead`."""
        output = self(reading)
        pose = (output[..., :-1] - actions[..., :-1]).square().mean(-1)
        closed = (actions[..., -1].clamp(-1, 1) + 1) / 2
        gripper = F.binary_cross_entropy_with_logits(output[..., -1], closed, reduction="none")
        return pose + self.config.gripper_weight * gripper

    def chunk(self, readings: list[Reading], noise: Tensor | None) -> Tensor:
        """The means, and the gripper at its expected place; draws nothing."""
        output = self(readings[0])
        return torch.cat([output[..., :-1], 2 * output[..., -1:].sigmoid() - 1], dim=-1)
