"""One token after the other behind what a backbone has read: the loop in which action tokens are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.policy.gen3.transformer import Backbone, Cache, Layer, SmallBackbone, is_plain

Step = Callable[[Tensor], Tensor]


def steps_after(backbone: Backbone, past: Cache, room: int) -> Step:
    """Gives, called with one more token (B, width) after ``past``, its last hidden state (B, width).

    Each token sees ``past`` and those before it. ``room``: the most tokens there will be. For inference: no
    gradient may be taken, and of a small backbone the weights must not change in between.
    """
    if isinstance(backbone, SmallBackbone) and all(
        _is_plain(cast(Layer, layer)) for layer in backbone.layers
    ):
        return _SmallSteps(backbone, past, room)
    return _Steps(backbone, past)


class _Steps:
    """By the backbone's own cache, which grows."""

    def __init__(self, backbone: Backbone, past: Cache) -> None:
        self._backbone, self._past = backbone, past

    def __call__(self, token: Tensor) -> Tensor:
        present = torch.ones(len(token), 1, dtype=torch.bool, device=token.device)
        hidden, self._past = self._backbone.run(token[:, None], present, self._past, causal=True)
        return hidden[:, 0]


class _SmallSteps:
    """By a few kernels a layer: no module is called, no key moved, no mask made.

    What ``SmallBackbone.run`` does with one causal token, which it is tested against.
    """

    def __init__(self, backbone: SmallBackbone, past: Cache, room: int) -> None:
        self._layers = [_weights(cast(Layer, layer)) for layer in backbone.layers]
        self._norm = backbone.norm
        self._heads = cast(Layer, backbone.layers[0]).heads
        self._length = past.present.shape[1]
        # Of each layer (B, 2, heads, N + room, size): keys, then values.
        self._pairs = []
        for pair in past.layers:
            batch, heads, length, size = pair[0].shape
            both = pair[0].new_empty(batch, 2, heads, length + room, size)
            torch.stack(pair, dim=1, out=both[:, :, :, :length])
            self._pairs.append(both)
        self._allowed = None
        if not bool(past.present.all()):
            self._allowed = F.pad(past.present, (0, room), value=True)[:, None, None]

    def __call__(self, token: Tensor) -> Tensor:
        at, self._length = self._length, self._length + 1
        allowed = None if self._allowed is None else self._allowed[..., : self._length]
        batch, width = token.shape
        x = token
        for (norm1, qkv, out, norm2, up, down), pairs in zip(self._layers, self._pairs, strict=True):
            new = F.linear(F.layer_norm(x, (width,), *norm1), *qkv).view(batch, 3, self._heads, 1, -1)
            pairs[:, :, :, at : self._length] = new[:, 1:]
            key, value = pairs[:, :, :, : self._length].unbind(1)
            seen = F.scaled_dot_product_attention(new[:, 0], key, value, attn_mask=allowed)
            x = x + F.linear(seen.view(batch, width), *out)
            x = x + F.linear(F.gelu(F.linear(F.layer_norm(x, (width,), *norm2), *up)), *down)
        return self._norm(x)


def _is_plain(layer: Layer) -> bool:
    return all(is_plain(part) for part in (layer.qkv, layer.out, layer.mlp[0], layer.mlp[2]))


def _weights(layer: Layer) -> list[tuple[Any, ...]]:
    """Weight and bias of each part of a layer, in the order in which they are used; a norm's epsilon too."""
    first, last = layer.mlp[0], layer.mlp[2]
    norms = [(norm.weight, norm.bias, norm.eps) for norm in (layer.norm1, layer.norm2)]
    linears = [(part.weight, part.bias) for part in (layer.qkv, layer.out, first, last)]
    return [norms[0], linears[0], linears[1], norms[1], linears[2], linears[3]]
