"""Frames to what a backbone's image tower takes, on the device, and what it makes of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import InputError
from pipeline.vlm.prompts import Family

# Pillow's codes, which preprocessor configurations use, to torch's names. Torch has no Lanczos (1);
# Transformers' own tensor preprocessing takes bicubic for it, too.
_INTERPOLATION = {0: "nearest", 1: "bicubic", 2: "bilinear", 3: "bicubic"}


class ImagePreparation(nn.Module):
    """Resizes and normalises like the backbone's own preprocessor, which would do it image by image."""

    def __init__(self, image_processor: Any, side: int) -> None:
        """``image_processor``: an ``AutoImageProcessor``; ``side``: of the tower's input, in pixels."""
        super().__init__()
        self.side = side
        normalised = image_processor.do_normalize
        mean = image_processor.image_mean if normalised else [0.0, 0.0, 0.0]
        std = image_processor.image_std if normalised else [1.0, 1.0, 1.0]
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise InputError(f"the backbone's preprocessor has image_mean {mean} and image_std {std}")
        rescale = image_processor.rescale_factor if image_processor.do_rescale else 1.0
        resample = image_processor.resample
        if resample not in _INTERPOLATION:
            raise InputError(f"the backbone's preprocessor resamples by {resample}, not by 0, 1, 2 or 3")
        self.mode = _INTERPOLATION[resample]
        deviation = torch.tensor(std, dtype=torch.float32)
        self.factor: Tensor
        self.offset: Tensor
        self.register_buffer("factor", (rescale / deviation)[:, None, None], persistent=False)
        self.register_buffer("offset", (torch.tensor(mean) / deviation)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, cameras, S, S, 3)`` uint8 RGB to ``(B, cameras, 3, side, side)`` float32, normalised."""
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float()
        return self.prepared(pixels).unflatten(0, images.shape[:2])

    def prepared(self, pixels: Tensor) -> Tensor:
        """``(N, 3, H, W)`` float32 in 0..255 to ``(N, 3, side, side)`` float32, normalised."""
        size = max(pixels.shape[-2:])
        if pixels.shape[-2:] != (self.side, self.side):
            smooth = self.mode != "nearest"
            pixels = functional.interpolate(
                pixels,
                size=(self.side, self.side),
                mode=self.mode,
                align_corners=False if smooth else None,
                antialias=smooth and size > self.side,
            )
            if self.mode == "bicubic":
                pixels = pixels.clamp_(0, 255)  # it overshoots at edges; Pillow cuts that off
        return pixels.mul(self.factor).sub_(self.offset)


def image_features(model: Any, pixels: Tensor, family: Family) -> Tensor:
    """Every image's tokens, one after the other, ``(B * images * places, width)``.

    ``pixels``: ``(B, images, 3, side, side)``; ``model``: the backbone.
    """
    images = pixels if family.images_per_prompt else pixels.flatten(0, 1)
    features = model.get_image_features(pixel_values=images).pooler_output
    whole = features if isinstance(features, Tensor) else torch.cat(list(features))
    return whole.reshape(-1, whole.shape[-1])


@torch.no_grad()
def image_places(model: Any, family: Family) -> int:
    """How many tokens of the prompt one image takes, found out by showing the tower one."""
    side = int(model.config.vision_config.image_size)
    pixels = torch.ones(1, 1, 3, side, side, device=model.device, dtype=model.dtype)
    return len(image_features(model, pixels, family))
