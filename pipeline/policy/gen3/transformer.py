"""A small prefix transformer with a cache of keys and values, and the backbone that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from lerobot.utils.constants import OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.encoders_gen3_vla import TextEncoder, augmented
from pipeline.policy.gen3.indicator_text import words_with_indicator
from pipeline.policy.gen3.linear import Linear, linear
from pipeline.policy.gen3.observations import STATE_IS_PAD, observed_keys
from pipeline.policy.gen3.stems import CameraTokens, StateTokens

Layers = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Cache:
    """Keys and values of all tokens so far: a layer's are (B, heads, N, size); ``present`` (B, N) bool."""

    present: Tensor
    layers: Layers


class Backbone(Protocol):
    """What reads tokens: the small transformer, or a pretrained vision-language model."""

    width: int
    key_width: int
    layer_count: int

    def observe(self, batch: Mapping[str, Any], indicator: Tensor) -> tuple[Tensor, Tensor]:
        """Observation and task as tokens (B, N, width), and which of them are there, (B, N) bool.

        ``indicator`` (B,) in 0..2 is among the words where ``indicator_input`` is text.
        """

    def last_only(self) -> list[nn.Module]:
        """The parts that only last hidden states depend on: no key or value does."""

    def run(
        self, tokens: Tensor, present: Tensor, past: Cache | None, *, causal: bool
    ) -> tuple[Tensor, Cache]:
        """Last hidden states (B, n, width) of ``tokens`` after ``past``, and the cache with both in it.

        Tokens attend to all of ``past`` that is present, and to all or, if ``causal``, to the earlier ones
        of each other.
        """


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """Scaled dot products of (B, heads, n, size) with (B, heads, N, size), to (B, n, heads x size)."""
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    return mixed.transpose(1, 2).flatten(2)


def in_heads(x: Tensor, heads: int) -> Tensor:
    """(B, n, heads x size) to (B, heads, n, size)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def allowed_keys(present: Tensor, new: int, *, causal: bool) -> Tensor:
    """Which of N keys, the last ``new`` of which are the queries themselves, each query sees.

    ``present`` (B, N) bool; the answer is bool (B, 1, new, N).
    """
    every = present[:, None, None, :].expand(-1, 1, new, -1)
    if not causal:
        return every
    length = present.shape[1]
    order = torch.ones(new, length, dtype=torch.bool, device=present.device).tril(length - new)
    return every & order


def last_queries(qkv: nn.Linear, x: Tensor, heads: int, wanted: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values of ``x`` (B, n, width) by ``qkv``, queries of its last ``wanted`` alone, in heads."""
    width = x.shape[2]
    if wanted == x.shape[1] or not is_plain(qkv):
        query, key, value = qkv(x).chunk(3, dim=2)
        query = query[:, x.shape[1] - wanted :]
    else:
        (weight, rest), (bias, others) = (part.split([width, 2 * width]) for part in (qkv.weight, qkv.bias))
        query = linear(x[:, x.shape[1] - wanted :], weight, bias)
        key, value = linear(x, rest, others).chunk(2, dim=2)
    return in_heads(query, heads), in_heads(key, heads), in_heads(value, heads)


def is_plain(linear: nn.Module) -> bool:
    """Whether a layer's output follows from its weight and bias alone: low-rank adapters add to it."""
    return type(linear) is Linear


class Layer(nn.Module):
    """Pre-norm self-attention and an MLP of twice the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.mlp = nn.Sequential(Linear(width, 2 * width), nn.GELU(), Linear(2 * width, width))

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, allowed: Tensor, wanted: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """``x`` (B, n, width); ``past`` keys and values; gives the output and both with ``x`` behind.

        The output is that of the last ``wanted``, (B, wanted, width).
        """
        query, key, value = last_queries(self.qkv, self.norm1(x), self.heads, wanted)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        first = x.shape[1] - wanted
        x = x[:, first:]
        if wanted == 0:
            return x, (key, value)
        x = x + self.out(attend(query, key, value, allowed[:, :, first:]))
        return x + self.mlp(self.norm2(x)), (key, value)


def interleaved(
    batch: Mapping[str, Any], steps: Tensor | None, tokens: Callable[[Mapping[str, Any]], Tensor]
) -> tuple[Tensor, Tensor]:
    """All observations' tokens (B, H x n, W), oldest first, and which are there, (B, H x n) bool.

    ``tokens`` makes (B x H, n, W) of single observations; ``steps`` (H, 1, W) is added to tell them apart,
    and is ``None`` where there is one observation, without an axis for time.
    """
    if steps is None:
        seen = tokens(batch)
        return seen, torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
    count = len(steps)
    single = tokens({key: batch[key].flatten(0, 1) for key in observed_keys(batch)})
    seen = (single.unflatten(0, (-1, count)) + steps).flatten(1, 2)
    padded = batch.get(STATE_IS_PAD)
    if padded is None:
        return seen, torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
    return seen, ~padded.repeat_interleave(single.shape[1], dim=1)


class SmallBackbone(nn.Module):
    """Tokens of cameras, words and state through a few :class:`Layer`; trains from scratch on a CPU."""

    def __init__(self, config: Gen3VLAConfig) -> None:
        super().__init__()
        self.config = config
        self.width = self.key_width = config.token_width
        self.layer_count = config.token_layers
        self.text = TextEncoder(config)
        self.word = Linear(config.word_width, self.width)
        self.state = StateTokens(config, self.width)
        sizes = [feature.shape[1:] for feature in config.image_features.values()]
        self.cameras = nn.ModuleList(CameraTokens(config, (size[0], size[1])) for size in sizes)
        steps = config.n_obs_steps if config.history == "interleaved" else 1
        self.steps = nn.Parameter(0.3 * torch.randn(steps, 1, self.width)) if steps > 1 else None
        self.layers = nn.ModuleList(Layer(self.width, config.token_heads) for _ in range(self.layer_count))
        self.norm = nn.LayerNorm(self.width)

    def observe(self, batch: Mapping[str, Any], indicator: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Backbone`; observations of several steps stand one after the other, oldest first."""
        tokens = words_with_indicator(batch[OBS_LANGUAGE_TOKENS], indicator, self.config)
        each = self.text.each_word(tokens)
        summary = self.text.summary(each, tokens)
        seen, present = interleaved(batch, self.steps, lambda single: self._step(single, summary))
        length = max(1, int((tokens != 0).sum(1).max()))
        words = self.word(each[:, :length])
        return torch.cat([seen, words], dim=1), torch.cat([present, tokens[:, :length] != 0], dim=1)

    def last_only(self) -> list[nn.Module]:
        """What only last hidden states depend on: no key or value of any layer does."""
        last = cast(Layer, self.layers[-1])
        return [last.out, last.norm2, last.mlp, self.norm]

    def _step(self, batch: Mapping[str, Any], text: Tensor) -> Tensor:
        state = batch[OBS_STATE]
        text = text.repeat_interleave(len(state) // len(text), 0)
        parts = [self.state(state, self.text.words)]
        for key, camera in zip(self.config.image_features, self.cameras, strict=True):
            parts.append(camera(augmented(batch[key], self.config, training=self.training), text))
        return torch.cat(parts, dim=1)

    def run(
        self,
        tokens: Tensor,
        present: Tensor,
        past: Cache | None,
        *,
        causal: bool,
        wanted: int | None = None,
    ) -> tuple[Tensor, Cache]:
        """See :class:`Backbone`; the hidden states are those of the last ``wanted`` tokens, or of all.

        What only others depend on is not computed.
        """
        if past is not None:
            present = torch.cat([past.present, present], dim=1)
        allowed = allowed_keys(present, tokens.shape[1], causal=causal)
        kept = []
        for i, layer in enumerate(self.layers):
            is_last = i == self.layer_count - 1
            count = tokens.shape[1] if wanted is None or not is_last else wanted
            before = past.layers[i] if past is not None else None
            tokens, pair = cast(Layer, layer)(tokens, before, allowed, count)
            kept.append(pair)
        return self.norm(tokens), Cache(present, tuple(kept))
