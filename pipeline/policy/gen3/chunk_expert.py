"""The transformer flow expert: a token an action, conditioned on the backbone in one of three ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.encoding import Memory, Reading
from pipeline.policy.gen3.flow import TIME_FEATURES, FlowHead, time_features
from pipeline.policy.gen3.linear import Linear
from pipeline.policy.gen3.transformer import attend, in_heads, last_queries


@dataclass(frozen=True)
class ExpertRead:
    """An observation as the expert needs it: for its modulation, its attention, its own sequence.

    ``condition`` (B, E); ``pairs``: a block's keys and values (B, heads, N, size), none unless conditioned by
    cross-attention; ``context`` (B, C, E) tokens of its own sequence; ``present`` (B, N or C) bool.
    """

    condition: Tensor
    pairs: list[tuple[Tensor, Tensor]]
    context: Tensor | None
    present: Tensor | None


class ExpertBlock(nn.Module):
    """Self-attention and an MLP, each scaled, shifted and gated; the gates start at zero (adaLN-Zero, DiT).

    With ``pairs`` the queries attend to the backbone's keys and values beside their own (pi0's blocks).
    """

    def __init__(self, width: int, heads: int, key_width: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = Linear(width, 3 * width), Linear(width, width)
        self.up, self.down = Linear(width, 2 * width), Linear(2 * width, width)
        self.keys = Linear(key_width, width) if key_width else None
        self.values = Linear(key_width, width) if key_width else None

    def pair(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The backbone's keys and values (B, N, key width) as this block's, (B, heads, N, size).

        Projected, as in SmolVLA: the backbone's may be of other widths, heads and rotations.
        """
        assert self.keys is not None
        assert self.values is not None
        return in_heads(self.keys(keys), self.heads), in_heads(self.values(values), self.heads)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        pair: tuple[Tensor, Tensor] | None,
        allowed: Tensor | None,
        wanted: int,
    ) -> Tensor:
        """``x`` (R, n, width) with one ``condition`` (R, width) each, to its last ``wanted``.

        ``pair`` is that of B observations, R = B x draws: an observation's draws are queries side by side,
        so that none of its keys is copied. ``allowed`` is bool, (R or 1, 1, 1, n) of no ``pair`` and
        (B, 1, draws x n, keys) of one, which keeps the draws from each other.
        """
        parts = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        inner = torch.addcmul(parts[1], self.norm(x), 1 + parts[0])
        if pair is not None:
            inner = inner.view(len(pair[0]), -1, inner.shape[2])
        query, key, value = last_queries(
            self.qkv, inner, self.heads, wanted if pair is None else inner.shape[1]
        )
        if pair is not None:
            key, value = torch.cat([pair[0], key], dim=2), torch.cat([pair[1], value], dim=2)
        x = x[:, x.shape[1] - wanted :]
        x = torch.addcmul(x, parts[2], self.out(attend(query, key, value, allowed)).view(x.shape))
        inner = torch.addcmul(parts[4], self.norm(x), 1 + parts[3])
        return torch.addcmul(x, parts[5], self.down(F.silu(self.up(inner))))


class ChunkExpert(FlowHead):
    """The velocity of a noisy chunk, a token a step; time and indicator condition every block by adaLN."""

    def __init__(self, config: Gen3VLAConfig, width: int, key_width: int, layers: int) -> None:
        """``width``, ``key_width``, ``layers``: of the backbone's hidden states, keys, and how many."""
        super().__init__()
        assert config.action_feature is not None
        self.config = config
        self.size = config.action_feature.shape[0]
        inner, self.how = config.token_width, config.conditioning
        # A bridge of one vector is one token, which is key and value of itself.
        self.whole = config.bridge == "full_sequence"
        key_size = key_width if self.whole else width
        self.enter = Linear(self.size, inner)
        self.places = nn.Parameter(0.3 * torch.randn(config.chunk_size, inner))
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, inner), nn.SiLU(), nn.Linear(inner, inner))
        self.indicator = nn.Embedding(3, inner) if config.indicator_input == "slot" else None
        self.condition = Linear(width, inner) if self.how == "adaln" else None
        self.context = Linear(width, inner) if self.how == "in_context" else None
        self.blocks = nn.ModuleList(
            ExpertBlock(inner, config.token_heads, key_size if self.how == "cross_attention" else None)
            for _ in range(config.token_layers)
        )
        # Block i reads the backbone's layer at the same share of its depth.
        self.reads = [(i + 1) * layers // config.token_layers - 1 for i in range(config.token_layers)]
        self.leave_norm = nn.LayerNorm(inner)
        self.leave = Linear(inner, self.size)

    def read(self, reading: Reading) -> ExpertRead:
        """See :class:`ExpertRead`."""
        memory = reading.memory
        hidden, present = _tokens(memory)
        condition = torch.zeros(len(hidden), self.places.shape[1], device=hidden.device)
        if self.indicator is not None:
            condition = self.indicator(reading.indicator)
        if self.condition is not None:
            condition = condition + self.condition(memory.one_vector())
        if self.context is not None:
            return ExpertRead(condition, [], self.context(hidden), present)
        if self.how != "cross_attention":
            return ExpertRead(condition, [], None, None)
        blocks = list(cast(Iterable[ExpertBlock], self.blocks))
        if memory.prefix is None:
            pairs = [block.pair(hidden, hidden) for block in blocks]
        else:
            layers = memory.prefix.layers
            pairs = [block.pair(*layers[at]) for block, at in zip(blocks, self.reads, strict=True)]
        return ExpertRead(condition, pairs, None, present)

    def forward(self, noisy: Tensor, time: Tensor, read: ExpertRead) -> Tensor:
        """See :class:`FlowHead`; each noise sample is a row of its own inside."""
        batch, draws = noisy.shape[:2]
        x = self.enter(noisy.view(batch * draws, -1, self.size)) + self.places
        when = self.time(time_features(time.expand(batch, draws)))
        condition = (when + read.condition[:, None]).flatten(0, 1)
        if read.context is not None:
            x = torch.cat([read.context.repeat_interleave(draws, 0), x], dim=1)
        allowed, steps = self._allowed(read, batch, draws), self.places.shape[0]
        for i, block in enumerate(self.blocks):
            # Of the observation's tokens in its sequence nothing is read behind the last block.
            wanted = steps if i == len(self.blocks) - 1 else x.shape[1]
            x = block(x, condition, read.pairs[i] if read.pairs else None, allowed, wanted)
        return self.leave(self.leave_norm(x)).reshape(noisy.shape)

    def _allowed(self, read: ExpertRead, batch: int, draws: int) -> Tensor | None:
        """Which keys each query sees, as :class:`ExpertBlock` wants it; ``None``: all of them."""
        if read.present is None:
            return None
        steps = self.places.shape[0]
        if not read.pairs:
            own = read.present.new_ones(batch, steps)
            return torch.cat([read.present, own], 1).repeat_interleave(draws, 0)[:, None, None]
        draw = torch.arange(draws, device=read.present.device).repeat_interleave(steps)
        own = (draw[:, None] == draw).expand(batch, -1, -1)
        seen = read.present[:, None].expand(-1, draws * steps, -1)
        return torch.cat([seen, own], dim=2)[:, None]


def _tokens(memory: Memory) -> tuple[Tensor, Tensor]:
    """A memory as tokens (B, N, W) and which of them are there."""
    if memory.prefix is not None:
        return memory.prefix.hidden, memory.prefix.present
    vector = memory.one_vector()
    return vector[:, None], torch.ones(len(vector), 1, dtype=torch.bool, device=vector.device)
