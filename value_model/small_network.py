"""The small value network: what the cameras see, what is asked for, to 201 logits over [−1, 0].

π*0.6 (arXiv 2511.14759) uses a 670 M vision-language model here. This network has the same inputs
and the same output at a size that two CPU cores train in seconds, so that a lab without a GPU closes
the loop. The same frame may be worth more under one task than under another: the task's words steer
the convolutional features of every camera (FiLM, arXiv 1709.07871) before they are pooled.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import InputError
from value_model.bins import BIN_COUNT
from value_model.value_network import ValueNetwork

PADDING_TOKEN = 0
_FLOAT_PER_LEVEL = 1.0 / 127.5


@dataclass(frozen=True)
class SmallNetworkConfig:
    """The small network's shape. Two models with equal configurations have exchangeable weights.

    cameras: how many images a frame has; they share one encoder.
    image_size: pixels on a side; the cached frames have this size.
    state_size: length of the state vector; 0 hides the state from the model.
    patch: side of the square patches, in pixels, that the first layer cuts the images into.
    channels: of the three convolutions, which shrink the image ``patch``-, 2- and 2-fold.
    width: of the task embedding and of the hidden layer of the head.
    vocabulary, words: how many hash buckets the words fall into, and how many words are read.
    image_dropout, dropout: on the encoded images and on the head's hidden layers, in training. High:
    a hundred episodes are soon learned by heart, and with less the held-out ones are valued worse.
    bins: number of value bins, odd. kind: always "small".
    """

    cameras: int = 2
    image_size: int = 84
    state_size: int = 15
    patch: int = 6
    channels: tuple[int, int, int] = (32, 48, 64)
    width: int = 192
    vocabulary: int = 512
    words: int = 16
    image_dropout: float = 0.3
    dropout: float = 0.5
    bins: int = BIN_COUNT
    kind: Literal["small"] = "small"

    def __post_init__(self) -> None:
        if self.kind != "small":
            raise InputError(f"a small value network's configuration is of kind 'small', not {self.kind!r}")
        if self.cameras < 1 or self.image_size < 16 or self.state_size < 0:
            raise InputError(
                f"value network of {self.cameras} cameras, {self.image_size} px, {self.state_size} state "
                "values: needs at least one camera of 16 px or more and a state of 0 or more"
            )
        if (
            len(self.channels) != 3
            or min(*self.channels, self.patch, self.width, self.words) < 1
            or self.vocabulary < 2
        ):
            raise InputError(
                "value network: channels are three positive numbers, patch, width and words positive"
            )
        if not (0 <= self.image_dropout < 1 and 0 <= self.dropout < 1):
            raise InputError(f"value network: dropout {self.image_dropout}, {self.dropout} is not in [0, 1)")


def tokenize(task: str, vocabulary: int, words: int) -> list[int]:
    """The task's words as ``words`` numbers below ``vocabulary``, padded with ``PADDING_TOKEN``.

    CRC-32 and not ``hash()``, which differs from one Python process to the next. Words beyond
    ``words`` are not read. Raises ``InputError`` for a task without a word.
    """
    found = re.findall(r"\w+", task.lower())
    if not found:
        raise InputError(f"the task {task!r} has no word in it")
    tokens = [1 + zlib.crc32(word.encode()) % (vocabulary - 1) for word in found[:words]]
    return tokens + [PADDING_TOKEN] * (words - len(tokens))


class SmallValueNetwork(ValueNetwork):
    """Images, state and task tokens to value logits; about 0.6 M parameters as configured by default."""

    config: SmallNetworkConfig

    def __init__(self, config: SmallNetworkConfig) -> None:
        """Builds the network with random weights from torch's global generator."""
        super().__init__(config)
        first, second, third = config.channels
        # Patches that do not overlap: the first layers are where a CPU spends its time, and this is a
        # quarter of the work of overlapping ones.
        self.patches = nn.Conv2d(3, first, config.patch, stride=config.patch)
        self.middle = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.middle_norm = nn.GroupNorm(1, second)
        self.film = nn.Linear(config.width, 2 * second)
        self.last = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.last_norm = nn.GroupNorm(1, third)
        # Each stride-2 convolution rounds the side up.
        side = ((config.image_size // config.patch + 1) // 2 + 1) // 2
        self.image_dropout = nn.Dropout(config.image_dropout)
        self.features = nn.Linear(config.cameras * third * side * side, config.width)
        self.words = _TaskEncoder(config)
        self.state = nn.Linear(config.state_size, config.width) if config.state_size else None
        self.head = nn.Sequential(
            nn.LayerNorm(config.width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, config.width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, config.bins),
        )

    def tokenize(self, tasks: Sequence[str]) -> Tensor:
        """Hash buckets of the tasks' words, int64 ``(len(tasks), config.words)``; see :func:`tokenize`."""
        rows = [tokenize(task, self.config.vocabulary, self.config.words) for task in tasks]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), self.config.words)

    def forward(self, images: Tensor, state: Tensor, tokens: Tensor) -> Tensor:
        """See :meth:`ValueNetwork.forward`."""
        batch, cameras = images.shape[:2]
        task = self.words(tokens)
        # A permuted view of channels-last data, so that no copy is made before the cast.
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float().mul_(_FLOAT_PER_LEVEL).sub_(1.0)
        middle = self.middle_norm(self.middle(functional.relu(self.patches(pixels))))
        scale, shift = self.film(task).repeat_interleave(cameras, dim=0)[:, :, None, None].chunk(2, dim=1)
        middle = functional.relu(middle * (1 + scale) + shift)
        encoded = functional.relu(self.last_norm(self.last(middle)))
        hidden = self.features(self.image_dropout(encoded.reshape(batch, -1))) + task
        if self.state is not None:
            hidden = hidden + self.state(self.normalised(state))
        return self.head(hidden)


class _TaskEncoder(nn.Module):
    """Word tokens ``(B, words)`` to one vector ``(B, width)`` that depends on the words' order."""

    def __init__(self, config: SmallNetworkConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width, padding_idx=PADDING_TOKEN)
        self.position = nn.Parameter(torch.randn(config.words, config.width))
        self.mix = nn.Linear(config.width, config.width)
        # Two tasks often differ by one word in five, and the part they share says nothing. Scaled to
        # what *differs* in the data, the task steers the features from the first step on; without
        # this the model spent a thousand steps ignoring which cube it was asked for.
        self.contrast = nn.BatchNorm1d(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        # Word and place meet in a non-linearity before the mean: without it "the red cube on the
        # blue cube" and "the blue cube on the red cube" would be the same bag of words.
        present = (tokens != PADDING_TOKEN).float()[:, :, None]
        mixed = functional.relu(self.mix(self.embedding(tokens) + self.position)) * present
        # A task that was not trained on may lie far outside of what differs between those that were.
        return self.contrast(mixed.sum(1) / present.sum(1)).clamp(-4, 4)
