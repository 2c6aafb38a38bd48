"""The small transformer's observation tokens: cameras, words and state, each as a few vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.encoders_gen3_vla import CameraEncoder, StateEncoder
from pipeline.policy.gen3.linear import Linear, linear
from pipeline.policy.processor_gen3_vla import hash_words

STATE_BINS = 256
_STATE_LIMIT = 2.5  # the scaled state's numbers lie within: sines, 5 times metres of height
_MAP_TOKENS = 2
INITIAL_STD = 0.3


class CameraTokens(nn.Module):
    """One camera's image as ``count`` tokens (B, count, width).

    A token for each soft keypoint, what is there and where (TokenLearner's soft attention, as in RT-1,
    section 5.1, with the attended position of a spatial softmax), and two for the whole flattened map.
    """

    def __init__(self, config: Gen3VLAConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.trunk = CameraEncoder(config, image_size)
        channels, width = config.vision_channels[2], config.token_width
        self.point = Linear(channels + 2, width)
        flat = self.trunk.feature_size - 2 * config.keypoints
        self.whole = Linear(flat, _MAP_TOKENS * width)
        self.count = config.keypoints + _MAP_TOKENS
        self.slots = nn.Parameter(INITIAL_STD * torch.randn(self.count, width))

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """``images`` (B, 3, H, W) in [-1, 1], ``text`` (B, word_width)."""
        trunk = self.trunk
        cells = trunk.feature_map(images, text).flatten(2).transpose(1, 2)
        attention = _each(trunk.keypoints, cells).transpose(1, 2).softmax(-1)
        places = torch.cat([cells, trunk.grid.T.expand(len(cells), -1, -1)], dim=2)
        points = self.point(attention @ places)
        whole = self.whole(_each(trunk.map, cells).transpose(1, 2).flatten(1)).unflatten(1, (_MAP_TOKENS, -1))
        return torch.cat([points, whole], dim=1) + self.slots


def _each(convolution: nn.Conv2d, cells: Tensor) -> Tensor:
    """A convolution of 1 x 1 on every cell, (B, cells, channels in) to (B, cells, channels out)."""
    return linear(cells, convolution.weight.flatten(1), convolution.bias)


def state_bins(features: Tensor) -> Tensor:
    """Scaled state features (B, F) as bin numbers 0..255, int64: evenly over [-2.5, 2.5], clipped."""
    unit = (features / _STATE_LIMIT + 1) / 2
    return (unit * STATE_BINS).floor().clamp(0, STATE_BINS - 1).long()


class StateTokens(nn.Module):
    """The chosen state components as ``count`` tokens (B, count, width), however ``state_input`` says."""

    digits: Tensor
    first: Tensor

    def __init__(self, config: Gen3VLAConfig, width: int, std: float = INITIAL_STD) -> None:
        """``width`` and ``std``: of the backbone's tokens."""
        super().__init__()
        self.kind = config.state_input
        self.features = StateEncoder(config)
        numbers = self.features.feature_size
        if self.kind == "continuous":
            self.count = 1
            self.project = Linear(numbers, width)
        elif self.kind == "tokens":
            self.count = numbers
            self.bins = nn.Embedding(numbers * STATE_BINS, width)
            nn.init.normal_(self.bins.weight, std=std)
            first = torch.arange(numbers) * STATE_BINS
            self.register_buffer("first", first, persistent=False)
        else:
            self.count = 3 * numbers
            digits = [hash_words(str(d), config.word_buckets, 1)[0] for d in range(10)]
            self.register_buffer("digits", torch.tensor(digits), persistent=False)
            self.project = Linear(config.word_width, width)
        self.slots = nn.Parameter(std * torch.randn(self.count, width))

    def forward(self, state: Tensor, words: nn.Embedding) -> Tensor:
        """``state`` (B, len(state_names)); ``words``: of the task's text, which digits share."""
        features = self.features(state)
        if self.kind == "continuous":
            return self.project(features)[:, None] + self.slots
        bins = state_bins(features)
        if self.kind == "tokens":
            return self.bins(bins + self.first) + self.slots
        digits = torch.stack([bins // 100, bins // 10 % 10, bins % 10], dim=-1).flatten(1)
        return self.project(words(self.digits[digits])) + self.slots
