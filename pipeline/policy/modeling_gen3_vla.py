"""``gen3_vla``: a small language-conditioned flow-matching policy (a LeRobot policy).

The observation is encoded once; a flow expert then turns noise into a chunk of actions in a few Euler
steps, conditioned on that encoding, on the flow time and on the advantage indicator.

Rectified flow (Liu et al. 2022), as in pi0: with noise e and actions a, x(t) = (1 - t) e + t a and the
expert learns the velocity a - e.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.encoders_gen3_vla import (
    CameraEncoder,
    StateEncoder,
    TextEncoder,
    random_shift,
    scale_images,
)
from pipeline.policy.processor_gen3_vla import OBS_INDICATOR
from pipeline.prompts import NONE

ACTION_IS_PAD = f"{ACTION}_is_pad"

_TIME_FEATURES = 32


class ObservationEncoder(nn.Module):
    """Cameras, state and task text to one vector (B, width); knows nothing of the indicator."""

    def __init__(self, config: Gen3VLAConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TextEncoder(config)
        self.state = StateEncoder(config)
        sizes = [feature.shape[1:] for feature in config.image_features.values()]
        cameras = [CameraEncoder(config, (size[0], size[1])) for size in sizes]
        self.cameras = nn.ModuleList(cameras)
        total = sum(c.feature_size for c in cameras) + self.state.feature_size + config.word_width
        self.mix = nn.Sequential(nn.Linear(total, config.width), nn.LayerNorm(config.width), nn.SiLU())

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Images are uint8 0..255 or float 0..1; augmented while training."""
        text = self.text(batch[OBS_LANGUAGE_TOKENS])
        features = [self.state(batch[OBS_STATE]), text]
        for key, camera in zip(self.config.image_features, self.cameras, strict=True):
            features.append(camera(self._prepare(batch[key]), text))
        return self.mix(torch.cat(features, dim=1))

    def _prepare(self, images: Tensor) -> Tensor:
        """Images as float in [-1, 1], shifted and jittered while training."""
        if not self.training:
            return scale_images(images, 0.0)
        return scale_images(random_shift(images, self.config.random_shift), self.config.color_jitter)


class FlowBlock(nn.Module):
    """A residual MLP whose input is scaled and shifted, and whose output is gated (adaLN).

    What sets scale, shift and gate is a sum: of a part that depends on observation and indicator, needed
    once an observation, and of a part that depends on the flow time.
    """

    def __init__(self, width: int, hidden: int, *, timed: bool = True) -> None:
        super().__init__()
        self.condition = nn.Linear(width, 3 * width)
        self.indicator = nn.Embedding(3, 3 * width)
        self.time = nn.Linear(_TIME_FEATURES, 3 * width, bias=False) if timed else None
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


class FlowExpert(nn.Module):
    """The velocity of a noisy, flattened chunk, given observation, flow time and indicator.

    The indicator has a slot of its own everywhere: it changes how the observation is read and enters
    the scale, shift and gate of every block, so a few frames are enough to tell its values apart.
    """

    def __init__(self, config: Gen3VLAConfig, chunk_numbers: int) -> None:
        super().__init__()
        width = config.width
        self.reading = FlowBlock(width, width, timed=False)
        self.enter = nn.Linear(chunk_numbers, width)
        self.from_condition = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            FlowBlock(width, config.expert_hidden) for _ in range(config.expert_blocks)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, chunk_numbers))

    def read(self, encoding: Tensor, indicator: Tensor) -> list[Tensor]:
        """All that the expert needs of an observation (B, width) under an indicator (B,) in 0..2."""
        first = self.reading.modulate(encoding, indicator)
        condition = F.silu(self.reading(encoding[:, None], first, None))[:, 0]
        start = self.from_condition(condition)[:, None]
        blocks = cast(Iterable[FlowBlock], self.blocks)
        return [start, *(block.modulate(condition, indicator) for block in blocks)]

    def forward(self, noisy: Tensor, time: Tensor, reading: list[Tensor]) -> Tensor:
        """``noisy`` (B, M, chunk numbers), ``time`` (B or 1, M) in [0, 1] to velocities like ``noisy``."""
        hidden = self.enter(noisy) + reading[0]
        features = time_features(time)
        for block, modulation in zip(self.blocks, reading[1:], strict=True):
            hidden = block(hidden, modulation, features)
        return self.leave(hidden)


def time_features(time: Tensor) -> Tensor:
    """Flow times in [0, 1] as sines and cosines of up to 16 half-turns, one more dimension."""
    frequencies = torch.pi * torch.logspace(-2, 4, _TIME_FEATURES // 2, base=2.0, device=time.device)
    angles = time[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Gen3VLAPolicy(PreTrainedPolicy):
    """The LeRobot policy ``gen3_vla``; batches come from its preprocessor pipeline."""

    config_class = Gen3VLAConfig
    name = "gen3_vla"

    def __init__(self, config: Gen3VLAConfig, **_: Any) -> None:
        """LeRobot's factory also passes dataset statistics, which belong to the processors here."""
        super().__init__(config)
        config.validate_features()
        self.config: Gen3VLAConfig = config
        assert config.action_feature is not None
        self.action_size = config.action_feature.shape[0]
        self.encoder = ObservationEncoder(config)
        self.expert = FlowExpert(config, config.chunk_size * self.action_size)
        self.reset()

    def get_optim_params(self) -> list[nn.Parameter]:
        """All parameters, in one group."""
        return list(self.parameters())

    def reset(self) -> None:
        """Forgets the actions that are still queued; call it when an episode starts."""
        self._queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    def forward(self, batch: dict[str, Tensor], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """The flow-matching loss of normalised chunks ``action`` (B, chunk_size, action size).

        Steps that ``action_is_pad`` (B, chunk_size) marks do not count. ``reduction`` is ``"mean"``
        over all counted steps, or ``"none"`` for one loss per sample (B,).
        """
        if reduction not in ("mean", "none"):
            raise ValueError(f"reduction is {reduction!r}; use 'mean' or 'none'")
        actions = batch[ACTION]
        indicator = batch[OBS_INDICATOR] - NONE
        reading = self.expert.read(self.encoder(batch), indicator)
        target = actions.flatten(1)[:, None]
        noise = torch.randn(len(actions), self.config.noise_samples, target.shape[-1], device=actions.device)
        time = torch.rand(noise.shape[:2], device=actions.device)
        noisy = torch.lerp(noise, target.expand_as(noise), time[..., None])
        output = self.expert(noisy, time, reading)
        wanted = target - noise if self.config.prediction == "velocity" else target
        error = (output - wanted).square().mean(1).view(actions.shape).mean(-1)
        if ACTION_IS_PAD in batch:
            counted = (~batch[ACTION_IS_PAD]).to(error.dtype)
        else:
            counted = torch.ones_like(error)
        if reduction == "none":
            loss = (error * counted).sum(1) / counted.sum(1).clamp_min(1)
        else:
            loss = (error * counted).sum() / counted.sum().clamp_min(1)
        return loss, {"loss": float(loss.detach().mean())}

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Normalised actions (B, chunk_size, action size), about in [-1, 1].

        ``noise`` (B, chunk_size, action size) is drawn from torch's global generator unless it is given.
        """
        self.eval()
        indicator = batch[OBS_INDICATOR] - NONE
        encoding = self.encoder(batch)
        shape = (len(encoding), self.config.chunk_size, self.action_size)
        x = (torch.randn(shape, device=encoding.device) if noise is None else noise).flatten(1)[:, None]
        indicators = [indicator]
        if self.config.guidance != 1.0 and bool((indicator != 0).any()):
            indicators.append(torch.zeros_like(indicator))
        readings = [self.expert.read(encoding, i) for i in indicators]
        steps = self.config.num_inference_steps
        for step in range(steps):
            time = torch.full((1, 1), step / steps, device=x.device)
            output = self.expert(x, time, readings[0])
            if len(readings) == 2:
                plain = self.expert(x, time, readings[1])
                output = torch.lerp(plain, output, self.config.guidance)
            if self.config.prediction == "velocity":
                x = x + output / steps
            else:  # velocity = (actions - x) / (time left)
                x = torch.lerp(x, output, 1 / (steps - step))
        return x.view(shape)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """The next normalised action (B, action size); predicts a new chunk when none is queued."""
        if not self._queue:
            chunk = self.predict_action_chunk(batch, noise)
            self._queue.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._queue.popleft()
