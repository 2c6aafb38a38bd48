"""Small copies of every camera's picture, for models that cost next to nothing."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.frame_table import FrameTable

SIDE = 12
_BLOCK = 512


def thumbnails(table: FrameTable, side: int = SIDE) -> np.ndarray:
    """Each frame's pictures, averaged down to ``side`` x ``side``, uint8.

    ``(N, cameras x side x side x 3)``: all cameras, one after the other, and nothing but the picture.
    """
    cameras, height, width, channels = table.image_shape
    small = np.empty((len(table), cameras * side, side, channels), dtype=np.uint8)
    block = np.empty((_BLOCK, *table.image_shape), dtype=np.uint8)
    for start in range(0, len(table), _BLOCK):
        frames = np.arange(start, min(start + _BLOCK, len(table)))
        images = table.images(frames, out=block[: len(frames)])
        # One below the other: averaging by area never mixes two cameras, as each has whole rows.
        stacked = images.reshape(len(frames), cameras * height, width, channels)
        for frame, picture in zip(frames.tolist(), stacked, strict=True):
            cv2.resize(picture, (side, cameras * side), dst=small[frame], interpolation=cv2.INTER_AREA)
    return small.reshape(len(table), -1)
