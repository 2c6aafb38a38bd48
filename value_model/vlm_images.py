"""Cached frames to what a backbone's image tower takes: on the device, a batch at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import InputError

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
        size = pixels.shape[-1]
        if size != self.side:
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
        pixels = pixels.mul(self.factor).sub_(self.offset)
        return pixels.unflatten(0, images.shape[:2])
