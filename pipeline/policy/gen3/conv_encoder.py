"""The smallest backbone: a convolutional encoder a camera, all joined into one vector."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lerobot.utils.constants import OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.encoders_gen3_vla import CameraEncoder, StateEncoder, TextEncoder, augmented
from pipeline.policy.gen3.encoding import Prefix, TokenErrors, ones_like_present
from pipeline.policy.gen3.indicator_text import words_with_indicator


class ObservationEncoder(nn.Module):
    """Cameras, state and task text to one vector (B, width); the indicator's slots are the expert's."""

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

    @property
    def knows_indicator(self) -> bool:
        """Whether the vector depends on the indicator."""
        return self.config.indicator_input == "text"

    def forward(
        self,
        batch: Mapping[str, Tensor],
        indicator: Tensor,
        actions: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> tuple[Prefix, TokenErrors]:
        """A prefix of one hidden state. Images are uint8 0..255 or float 0..1; augmented while training.

        ``indicator`` (B,) in 0..2; actions are not looked at: there are no tokens to be predicted.
        """
        text = self.text(words_with_indicator(batch[OBS_LANGUAGE_TOKENS], indicator, self.config))
        features = [self.state(batch[OBS_STATE]), text]
        for key, camera in zip(self.config.image_features, self.cameras, strict=True):
            features.append(camera(augmented(batch[key], self.config, training=self.training), text))
        hidden = self.mix(torch.cat(features, dim=1))[:, None]
        return Prefix(hidden, ones_like_present(hidden)), TokenErrors()
