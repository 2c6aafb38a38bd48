"""Small random changes to training images that must not change what a frame is worth."""

from __future__ import annotations

import numpy as np


def random_shift(images: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Moves each image by up to ``pixels`` in x and y (DrQ's shift, arXiv 2004.13649).

    ``images`` is ``(B, cameras, S, S, 3)`` uint8; what moves in at a border repeats it. Each frame and
    camera moves on its own. Returns a new array, or ``images`` itself when ``pixels`` is 0.
    """
    if pixels == 0:
        return images
    batch, cameras, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    offsets = rng.integers(0, 2 * pixels + 1, size=(batch, cameras, 2))
    shifted = np.empty_like(images)
    for i in range(batch):
        for camera in range(cameras):
            y, x = offsets[i, camera]
            shifted[i, camera] = padded[i, camera, y : y + height, x : x + width]
    return shifted
