"""From the backbone to the expert: everything, one token, or a pooled vector; and vectors over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.encoding import Memory, Prefix
from pipeline.policy.gen3.transformer import attend, in_heads


class OneVector(nn.Module):
    """The only hidden state that there is: the bridge of backbone ``conv``."""

    def forward(self, prefix: Prefix) -> Memory:
        """``vector`` is the first hidden state."""
        return Memory(vector=prefix.hidden[:, 0])


class SpecialToken(nn.Module):
    """The hidden state of the token that stands last, after everything else was read (CogACT, RoboVLMs)."""

    def forward(self, prefix: Prefix) -> Memory:
        """``vector`` is the last hidden state."""
        return Memory(vector=prefix.hidden[:, -1])


class FullSequence(nn.Module):
    """All of it (pi0, SmolVLA, GR00T N1)."""

    def forward(self, prefix: Prefix) -> Memory:
        """``prefix`` itself."""
        return Memory(prefix=prefix)


class Pooled(nn.Module):
    """Learned queries attend to all hidden states; what they find, side by side, is mixed into one vector."""

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self.scores = nn.Linear(width, queries)
        self.mix = nn.Sequential(nn.Linear(queries * width, width), nn.LayerNorm(width))

    def forward(self, prefix: Prefix) -> Memory:
        """``vector`` (B, W) with the same W as the backbone."""
        scores = self.scores(prefix.hidden).masked_fill(~prefix.present[:, :, None], -torch.inf)
        found = scores.softmax(1).transpose(1, 2) @ prefix.hidden
        return Memory(vector=self.mix(found.flatten(1)))


def build_bridge(config: Gen3VLAConfig, width: int) -> nn.Module:
    """The bridge that ``config`` names, for hidden states of ``width``."""
    if config.backbone == "conv":
        return OneVector()
    if config.bridge == "pooled":
        return Pooled(width, config.pool_queries)
    return {"special_token": SpecialToken, "full_sequence": FullSequence}[config.bridge]()


class HistoryHead(nn.Module):
    """The policy head over H observations (RoboVLMs, policy head): a_t = h(LRN_{t-H+1}, ..., LRN_t).

    The present vector attends to all of them, and what it finds is added to it.
    """

    def __init__(self, width: int, steps: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.places = nn.Parameter(0.3 * torch.randn(steps, width))
        self.norm = nn.LayerNorm(width)
        self.query, self.pair = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, vectors: Tensor, padded: Tensor) -> Tensor:
        """``vectors`` (B, H, width), oldest first, ``padded`` (B, H) bool, to (B, width)."""
        placed = self.norm(vectors + self.places)
        query = in_heads(self.query(placed[:, -1:]), self.heads)
        key, value = (in_heads(part, self.heads) for part in self.pair(placed).chunk(2, dim=2))
        found = attend(query, key, value, ~padded[:, None, None, :])
        return vectors[:, -1] + self.out(found[:, 0])
