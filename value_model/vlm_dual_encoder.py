"""Reads a value out of a dual encoder (SigLIP, CLIP): image tower, text tower, and a small transformer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import InputError
from value_model.value_network import check_task
from value_model.vlm_config import VlmNetworkConfig

# In place of the backbone's own padding token, which some share with the end of the text.
PADDING_TOKEN = -1


def is_dual_encoder(model: Any) -> bool:
    """Whether the model has a tower for images and one for texts that can be run apart."""
    return all(hasattr(model, part) for part in ("vision_model", "text_model", "get_text_features"))


class DualEncoderReader(nn.Module):
    """A value token that looks at the task's words and, through them, at every camera's patches.

    The towers know nothing of each other, so what the task asks of the picture is found out here: value
    token, words, the whole text and the state attend to each other and to all patches of all cameras
    (decoder layers of arXiv 1706.03762, normalised first).
    """

    def __init__(self, model: Any, tokenizer: Any, config: VlmNetworkConfig) -> None:
        """``model``, ``tokenizer``: of the backbone. Fresh weights from torch's global generator."""
        super().__init__()
        shape, width = model.config, config.readout_width
        self.tokenizer = tokenizer
        self.text_length = int(shape.text_config.max_position_embeddings)
        self.words = min(config.words, self.text_length)
        self.frozen, self.low_precision = config.tune == "frozen", config.precision == "bfloat16"
        self.width = width
        self.patches = _entry(shape.vision_config.hidden_size, width)
        self.cameras = nn.Parameter(torch.randn(config.cameras, 1, width))
        self.text = _entry(shape.text_config.hidden_size, width)
        self.whole_text = _entry(_pooled_width(shape), width)
        # Two tasks often differ by one word in five. Scaled to what differs in the data, the task steers
        # what is read of the patches from the first step on (FiLM, arXiv 1709.07871); without this the
        # readout was seen to ignore it for as long as was tried.
        self.contrast = nn.BatchNorm1d(width)
        self.film = nn.Linear(width, 2 * width)
        self.state = nn.Linear(config.state_size, width) if config.state_size else None
        self.value_token = nn.Parameter(torch.randn(1, 1, width))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                width,
                config.readout_heads,
                4 * width,
                config.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.readout_layers)
        )

    def tokenize(self, tasks: Sequence[str]) -> Tensor:
        """The backbone's tokens, int64 ``(len(tasks), text_length)``, padded with ``PADDING_TOKEN``."""
        rows = torch.full((len(tasks), self.text_length), PADDING_TOKEN, dtype=torch.int64)
        for row, task in enumerate(tasks):
            check_task(task)
            ids = self.tokenizer(task)["input_ids"]
            if len(ids) > self.words:
                raise InputError(
                    f"the task {task!r} takes {len(ids)} of the backbone's tokens, and {self.words} are "
                    f"read: shorten it, or set words higher (at most {self.text_length})"
                )
            rows[row, : len(ids)] = torch.tensor(ids)
        return rows

    def forward(self, model: Any, pixels: Tensor, state: Tensor | None, tokens: Tensor) -> Tensor:
        """What the value token has read, ``(B, width)``.

        ``pixels``: ``(B, cameras, 3, side, side)``; ``state``: ``(B, state_size)`` normalised, or None.
        """
        with torch.no_grad() if self.frozen else nullcontext():
            patches = model.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
            # A batch holds a handful of tasks at most, so the text tower costs next to nothing.
            distinct, which = torch.unique(tokens, dim=0, return_inverse=True)
            padding = self.tokenizer.pad_token_id or 0
            text = model.text_model(input_ids=distinct.masked_fill(distinct == PADDING_TOKEN, padding))
        with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=self.low_precision):
            words = self.text(text.last_hidden_state[:, : self.words].float())[which]
            absent = tokens[:, : self.words] == PADDING_TOKEN
            whole = self.whole_text(text.pooler_output.float())[which] + _mean(words, ~absent)
            task = self.contrast(whole.float()).clamp(-4, 4)
            scale, shift = self.film(task)[:, None, None].chunk(2, dim=-1)
            memory = self.patches(patches.float()).unflatten(0, pixels.shape[:2]) + self.cameras
            memory = functional.gelu(memory * (1 + scale) + shift).flatten(1, 2)
            parts = [self.value_token + task[:, None]]
            if self.state is not None and state is not None:
                parts.append(self.state(state)[:, None])
            hidden = torch.cat([*parts, words], dim=1)
            absent = torch.cat([absent.new_zeros(len(tokens), len(parts)), absent], dim=1)
            for layer in self.layers:
                hidden = layer(hidden, memory, tgt_key_padding_mask=absent)
        return hidden[:, 0]


def _mean(words: Tensor, present: Tensor) -> Tensor:
    """The mean of the words that are present, ``(B, words, width)`` to ``(B, width)``."""
    weight = present[:, :, None].to(words.dtype)
    return (words * weight).sum(1) / weight.sum(1)


def _entry(features: int, width: int) -> nn.Module:
    """From a tower's features to the readout's width; normalised, as towers differ in scale."""
    return nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width))


def _pooled_width(shape: Any) -> int:
    """The length of the text tower's ``pooler_output``: SigLIP projects it, CLIP does not."""
    return int(getattr(shape.text_config, "projection_size", shape.text_config.hidden_size))
