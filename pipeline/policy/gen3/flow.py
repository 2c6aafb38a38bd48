"""Flow matching: the loss and the integration that every flow expert shares, and the MLP expert.

Rectified flow (Liu et al. 2022), as in pi0: with noise e and actions a, x(t) = (1 - t) e + t a and the
expert learns the velocity a - e.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.gen3.encoding import ActionHead, Reading, held

TIME_FEATURES = 32


class FlowHead(ActionHead):
    """Training and sampling of a flow; what the velocity is, subclasses say in ``read`` and ``forward``."""

    config: Gen3VLAConfig
    # Whether steps that do not count are given to the network as the last one that does.
    holds_uncounted: ClassVar[bool] = True

    @abstractmethod
    def read(self, reading: Reading) -> Any:
        """All that ``forward`` needs of a reading: computed once, whatever the number of flow times."""

    @abstractmethod
    def forward(self, noisy: Tensor, time: Tensor, read: Any) -> Tensor:
        """``noisy`` (B, M, T x A), ``time`` (B or 1, M) in [0, 1] to outputs like ``noisy``."""

    def errors(self, reading: Reading, actions: Tensor, counted: Tensor) -> Tensor:
        """The squared error of the output, the mean over noise samples and components, (B, T)."""
        read = self.read(reading)
        if self.holds_uncounted:
            actions = held(actions, counted)
        target = actions.flatten(1)[:, None]
        noise = torch.randn(len(actions), self.config.noise_samples, target.shape[-1], device=actions.device)
        time = torch.rand(noise.shape[:2], device=actions.device)
        noisy = torch.lerp(noise, target.expand_as(noise), time[..., None])
        output = self(noisy, time, read)
        wanted = target - noise if self.config.prediction == "velocity" else target
        return (output - wanted).square().mean(1).view(actions.shape).mean(-1)

    def chunk(self, readings: list[Reading], noise: Tensor | None) -> Tensor:
        """Euler steps from noise; with a second reading the guided field v_u + beta (v_c - v_u).

        Classifier-free guidance (Ho and Salimans 2022) of the flow field by beta = ``guidance``, pi*0.6's
        appendix; at beta 1 it is the conditional field, at 0 the field without indicator.
        """
        assert self.config.action_feature is not None
        shape = (len(readings[0].indicator), self.config.chunk_size, *self.config.action_feature.shape)
        device = readings[0].indicator.device
        x = (torch.randn(shape, device=device) if noise is None else noise).flatten(1)[:, None]
        reads = [self.read(reading) for reading in readings]
        steps = self.config.num_inference_steps
        for step in range(steps):
            time = torch.full((1, 1), step / steps, device=x.device)
            output = self(x, time, reads[0])
            if len(reads) == 2:
                plain = self(x, time, reads[1])
                output = torch.lerp(plain, output, self.config.guidance)
            if self.config.prediction == "velocity":
                x = x + output / steps
            else:  # velocity = (actions - x) / (time left)
                x = torch.lerp(x, output, 1 / (steps - step))
        return x.view(shape)


class FlowBlock(nn.Module):
    """A residual MLP whose input is scaled and shifted, and whose output is gated (adaLN).

    What sets scale, shift and gate is a sum: of a part that depends on observation and indicator, needed
    once an observation, and of a part that depends on the flow time.
    """

    def __init__(self, width: int, hidden: int, *, timed: bool = True) -> None:
        super().__init__()
        self.condition = nn.Linear(width, 3 * width)
        self.indicator = nn.Embedding(3, 3 * width)
        self.time = nn.Linear(TIME_FEATURES, 3 * width, bias=False) if timed else None
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        nn.init.normal_(self.indicator.weight, std=0.02)

    def modulate(self, condition: Tensor, indicator: Tensor) -> Tensor:
        """The part (B, 1, 3 width) for ``condition`` (B, width) and ``indicator`` (B,) in 0..2."""
        return (self.condition(condition) + self.indicator(indicator))[:, None]

    def forward(self, hidden: Tensor, modulation: Tensor, time: Tensor | None) -> Tensor:
        """``hidden`` (B, M, width); ``time`` (B, M, time features)."""
        if self.time is not None:
            modulation = modulation + self.time(time)
        scale, shift, gate = modulation.chunk(3, dim=-1)
        inner = self.norm(hidden) * (1 + scale) + shift
        return hidden + (1 + gate) * self.down(F.silu(self.up(inner)))


class FlowExpert(FlowHead):
    """The velocity of a noisy, flattened chunk, given observation, flow time and indicator.

    The indicator has a slot of its own everywhere: it changes how the observation is read and enters
    the scale, shift and gate of every block, so a few frames are enough to tell its values apart.

    Unlike :class:`ActionHead` wants, it reads the actions of uncounted steps as they are, and through them
    the errors of the others change a little (1.703 to 1.708 for other ones in a fifth of the steps): its
    losses, and so the networks trained with it, are to stay what they were before there were other heads.
    """

    holds_uncounted = False

    def __init__(self, config: Gen3VLAConfig, chunk_numbers: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.reading = FlowBlock(width, width, timed=False)
        self.enter = nn.Linear(chunk_numbers, width)
        self.from_condition = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            FlowBlock(width, config.expert_hidden) for _ in range(config.expert_blocks)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, chunk_numbers))

    def read(self, reading: Reading) -> list[Tensor]:
        """The hidden start and each block's modulation."""
        encoding, indicator = reading.memory.one_vector(), reading.indicator
        if self.config.indicator_input == "text":  # it is in the encoding already
            indicator = torch.zeros_like(indicator)
        first = self.reading.modulate(encoding, indicator)
        condition = F.silu(self.reading(encoding[:, None], first, None))[:, 0]
        start = self.from_condition(condition)[:, None]
        blocks = cast(Iterable[FlowBlock], self.blocks)
        return [start, *(block.modulate(condition, indicator) for block in blocks)]

    def forward(self, noisy: Tensor, time: Tensor, read: list[Tensor]) -> Tensor:
        """See :meth:`FlowHead.forward`."""
        hidden = self.enter(noisy) + read[0]
        features = time_features(time)
        for block, modulation in zip(self.blocks, read[1:], strict=True):
            hidden = block(hidden, modulation, features)
        return self.leave(hidden)


def time_features(time: Tensor) -> Tensor:
    """Flow times in [0, 1] as sines and cosines of up to 16 half-turns, one more dimension."""
    frequencies = torch.pi * torch.logspace(-2, 4, TIME_FEATURES // 2, base=2.0, device=time.device)
    angles = time[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
