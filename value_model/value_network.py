"""The interface that every value network has; nothing outside asks which network it is."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.errors import InputError, one_line

if TYPE_CHECKING:
    from value_model.network import NetworkConfig

# Standard deviations, in the state's own units, below which a value counts as constant.
_SMALLEST_SCALE = 1e-2
# Normalised states further out than this tell no more than that they are far out.
_FURTHEST = 5.0


class ValueNetwork(nn.Module, ABC):
    """Images, state and task of a frame to logits over the value bins.

    ``config`` is what it was built from, and builds an equal network (with the same weights in it,
    where they come from a backbone).
    """

    config: NetworkConfig
    # Of the training frames, ``(state_size,)`` float32 in the state's own units (rad, m, ...).
    state_mean: Tensor
    state_scale: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        """Keeps ``config`` and adds the state's normalisation, which is the identity until it is fitted."""
        super().__init__()
        self.config = config
        self.register_buffer("state_mean", torch.zeros(config.state_size))
        self.register_buffer("state_scale", torch.ones(config.state_size))

    @abstractmethod
    def forward(self, images: Tensor, state: Tensor, tokens: Tensor) -> Tensor:
        """Value logits ``(B, bins)`` float32.

        ``images``: ``(B, cameras, S, S, 3)`` uint8 RGB; ``state``: ``(B, state_size)`` float32, in its
        own units; ``tokens``: ``(B, words)`` int64 from :meth:`tokenize`.
        """

    @abstractmethod
    def tokenize(self, tasks: Sequence[str]) -> Tensor:
        """What :meth:`forward` reads of each task, int64 ``(len(tasks), words)`` on the CPU.

        ``words`` is the same in every call. Raises ``InputError`` for a task without a word.
        """

    def fit_inputs(self, state: Tensor) -> None:
        """Normalises by these training frames' states, ``(N, any)`` float32; saved with the weights.

        Does nothing where the network does not see the state.
        """
        if len(self.state_mean):
            self.state_mean.copy_(state.mean(0))
            self.state_scale.copy_(state.std(0).clamp(min=_SMALLEST_SCALE))

    def normalised(self, state: Tensor) -> Tensor:
        """``state`` ``(B, state_size)`` without unit, outliers cut off."""
        return ((state - self.state_mean) / self.state_scale).clamp(-_FURTHEST, _FURTHEST)

    def trained_state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold: all weights and buffers, unless a network can do with less.

        The tensors are the network's own, not copies.
        """
        return dict(self.state_dict())

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what :meth:`trained_state` of a network of equal configuration gave.

        Raises ``InputError`` where tensors are missing, unknown, or of another shape.
        """
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"the weights do not fit the value network: {one_line(error)}") from error


def parameter_counts(network: nn.Module) -> tuple[int, int]:
    """How many of the network's parameters are trained, and how many it has."""
    parameters = list(network.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def flops_per_frame(network: ValueNetwork) -> int:
    """Floating-point operations that valuing one frame takes: twice the multiplications of its matrix
    products and convolutions, as counted in one run on the network's device, which leaves it unchanged."""
    from torch.utils.flop_counter import FlopCounterMode

    config, device = network.config, network.state_mean.device
    side, training = config.image_size, network.training
    images = torch.zeros(1, config.cameras, side, side, 3, dtype=torch.uint8, device=device)
    state = torch.zeros(1, config.state_size, device=device)
    counter = FlopCounterMode(display=False)
    network.eval()
    try:
        with torch.no_grad(), counter:
            network(images, state, network.tokenize(["pick up the red cube"]).to(device))
    finally:
        network.train(training)
    return int(counter.get_total_flops())


def check_task(task: str) -> None:
    """Raises ``InputError`` for a task without a word."""
    if not re.search(r"\w", task):
        raise InputError(f"the task {task!r} has no word in it")
