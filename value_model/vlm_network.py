"""The value network on a pretrained backbone: images and task through it, a value token read out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.vlm.files import Backbone, load_backbone
from pipeline.vlm.images import ImagePreparation
from pipeline.vlm.prompts import family_of
from value_model.value_network import ValueNetwork
from value_model.vlm_config import VlmNetworkConfig, backbone_and_digest
from value_model.vlm_dual_encoder import DualEncoderReader, is_dual_encoder
from value_model.vlm_generative import GenerativeReader
from value_model.vlm_tuning import set_up_tuning, weight_dtype


def build_vlm_network(config: VlmNetworkConfig) -> VlmValueNetwork:
    """The network on the backbone that ``config`` names; everything else gets fresh weights.

    Raises ``InputError`` where the backbone is missing, damaged, another than ``backbone_digest``, or
    of a type that cannot be read out.
    """
    folder, digest = backbone_and_digest(config)
    backbone = load_backbone(folder, weight_dtype(config))
    return VlmValueNetwork(replace(config, backbone_digest=digest), backbone)


class VlmValueNetwork(ValueNetwork):
    """A backbone, frozen or not, a reader that turns its features into one vector, and a head."""

    config: VlmNetworkConfig

    def __init__(self, config: VlmNetworkConfig, backbone: Backbone) -> None:
        """Takes the backbone over; :func:`build_vlm_network` loads one."""
        super().__init__(config)
        model: Any = backbone.model
        self.images = ImagePreparation(backbone.image_processor, model.config.vision_config.image_size)
        self.reader: DualEncoderReader | GenerativeReader
        if is_dual_encoder(model):
            self.reader = DualEncoderReader(model, backbone.tokenizer, config)
        else:
            family = family_of(model.config.model_type, "dual encoders (SigLIP, CLIP)")
            self.reader = GenerativeReader(model, backbone.tokenizer, family, config)
        set_up_tuning(model, config)
        self.backbone = model
        self.head = nn.Sequential(
            nn.LayerNorm(self.reader.width),
            nn.Linear(self.reader.width, config.readout_width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.readout_width, config.bins),
        )
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        self._kept = [n for n in self.state_dict() if n in trained or not n.startswith("backbone.")]
        self.train(self.training)

    def forward(self, images: Tensor, state: Tensor, tokens: Tensor) -> Tensor:
        """See :meth:`ValueNetwork.forward`."""
        device, config = images.device.type, self.config
        seen = self.normalised(state) if config.state_size else None
        # Nothing here depends on the caller's autocast. A backbone that is held in bfloat16 computes in
        # it anyway; the head and the image preparation stay in float32.
        with torch.autocast(device, enabled=False):
            pixels = self.images(images)
        under_autocast = config.precision == "bfloat16" and config.tune == "full"
        with torch.autocast(device, dtype=torch.bfloat16, enabled=under_autocast):
            hidden = self.reader(self.backbone, pixels.to(self.backbone.dtype), seen, tokens)
        with torch.autocast(device, enabled=False):
            return self.head(hidden.float())

    def tokenize(self, tasks: Sequence[str]) -> Tensor:
        """The backbone's own tokens of each task; see :meth:`ValueNetwork.tokenize`."""
        return self.reader.tokenize(tasks)

    def train(self, mode: bool = True) -> VlmValueNetwork:
        """As ``nn.Module.train``, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.config.tune == "frozen":
            self.backbone.eval()
        return self

    def trained_state(self) -> dict[str, Tensor]:
        """Everything but what is in the backbone's files: trained parameters, and normalisations."""
        state = self.state_dict()
        return {name: state[name] for name in self._kept}

    @torch.no_grad()
    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`ValueNetwork.load_trained_state`."""
        own = self.trained_state()
        differing = sorted(own.keys() ^ state.keys())
        differing += sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
        if differing:
            raise InputError(
                f"the weights do not fit the value network: {len(differing)} are missing, unknown or of "
                f"another shape ({differing[0]})"
            )
        for name, tensor in own.items():
            tensor.copy_(state[name])
