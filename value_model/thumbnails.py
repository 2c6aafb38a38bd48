"""Small copies of every camera's picture, for models that cost next to nothing."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.frame_table import FrameTable

SIDE = 12
# Few, so that pictures are still in the processor's cache when they are made smaller.
_BLOCK = 4
# Pictures of this many times the small side are halved first: whole numbers, which is five times as fast
# at 224 pixels. On noise it changes a pixel by 4 of 255 at most.
_HALVED_FROM = 16


def thumbnails(table: FrameTable, frames: np.ndarray | None = None, *, side: int = SIDE) -> np.ndarray:
    """The pictures of these frames (default: of all), averaged down to ``side`` x ``side``, uint8.

    ``frames`` (B,) int are rows of the table; gives ``(B, cameras x side x side x 3)``: all cameras, one
    after the other, and nothing but the picture.
    """
    frames = np.arange(len(table)) if frames is None else np.asarray(frames)
    cameras, height, width, channels = table.image_shape
    small = np.empty((len(frames), cameras * side, side, channels), dtype=np.uint8)
    block = np.empty((_BLOCK, *table.image_shape), dtype=np.uint8)
    for start in range(0, len(frames), _BLOCK):
        wanted = frames[start : start + _BLOCK]
        images = table.images(wanted, out=block[: len(wanted)])
        # One below the other: averaging by area never mixes two cameras, as each has whole rows.
        stacked = images.reshape(len(wanted), cameras * height, width, channels)
        for row, picture in enumerate(stacked, start):
            shrunk = _halved(picture, height, width, cameras, side)
            cv2.resize(shrunk, (side, cameras * side), dst=small[row], interpolation=cv2.INTER_AREA)
    return small.reshape(len(frames), -1)


def _halved(picture: np.ndarray, height: int, width: int, cameras: int, side: int) -> np.ndarray:
    while min(height, width) >= _HALVED_FROM * side and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
        picture = cv2.resize(picture, (width, cameras * height), interpolation=cv2.INTER_AREA)
    return picture
