"""Films of robot episodes for people: two policies side by side as a GIF."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.durable_files import write_file
from pipeline.errors import InputError

MAX_GIF_BYTES = 2_500_000

_INK, _PAPER, _MUTED = (31, 35, 40), (255, 255, 255), (100, 108, 118)
_GOOD, _BAD = (0, 158, 115), (213, 94, 0)
_GAP = 6  # pixels between tiles
_HOLD_S = 1.6  # how long the finished frame stays
_COLOURS = 128
# Tried in turn until the film is small enough: (share of the tile size, every n-th frame).
_SHRINK = ((1.0, 1), (0.85, 1), (0.85, 2), (0.7, 2), (0.55, 2), (0.4, 3), (0.25, 4))


@dataclass(frozen=True)
class Clip:
    """One attempt: ``frames`` uint8 (T, H, W, 3) RGB, whether it succeeded, and its task."""

    frames: np.ndarray
    success: bool
    task: str = ""


def fit_height(image: np.ndarray, height: int) -> np.ndarray:
    """``image`` (H×W×3 uint8) scaled to ``height`` pixels; returned as it is where it fits already."""
    if image.shape[0] == height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def comparison_gif(
    left: Sequence[Clip],
    right: Sequence[Clip],
    labels: tuple[str, str],
    out: Path,
    fps: float = 10.0,
    *,
    tile: int = 240,
    at_once: int = 1,
    max_bytes: int = MAX_GIF_BYTES,
) -> Path:
    """Writes an endless GIF that plays ``left[i]`` beside ``right[i]``, the same start for both policies.

    ``labels`` stand above the two sides, each with its count of successes so far; a finished attempt
    stays on its last frame with a tick or a cross. ``at_once`` starts run at the same time, in a block
    per side; ``tile`` is their height in pixels. The film is made smaller, then choppier, until it has
    at most ``max_bytes``. Raises ``InputError`` for sides of different or no length, and for a film
    that does not get small enough.
    """
    if not left or len(left) != len(right) or at_once < 1:
        raise InputError(
            f"a comparison needs the same starts on both sides, not {len(left)} and {len(right)}"
        )
    if any(len(clip.frames) == 0 for clip in (*left, *right)):
        raise InputError("a clip has no frames")
    data = b""
    for share, stride in _SHRINK:
        data = _gif(left, right, labels, fps, max(24, round(tile * share)), stride, at_once)
        if len(data) <= max_bytes:
            write_file(out, data)
            return out
    raise InputError(
        f"the film has {len(data)} bytes at its smallest, more than {max_bytes}: show fewer starts"
    )


def _gif(
    left: Sequence[Clip],
    right: Sequence[Clip],
    labels: tuple[str, str],
    fps: float,
    tile: int,
    stride: int,
    at_once: int,
) -> bytes:
    pages: list[Image.Image] = []
    durations: list[int] = []
    # GIF times are hundredths of a second.
    frame_ms = max(20, round(100 * stride / fps) * 10)
    for first in range(0, len(left), at_once):
        now = slice(first, first + at_once)
        sides = (left[now], right[now])
        before = (sum(c.success for c in left[:first]), sum(c.success for c in right[:first]))
        longest = max(len(c.frames) for side in sides for c in side)
        moments = [*range(0, longest, stride), longest]
        for moment in moments:
            pages.append(_page(sides, labels, before, len(left), moment, tile, at_once))
            durations.append(frame_ms)
        durations[-1] = round(1000 * _HOLD_S)
    # One palette and no dithering: what does not move then costs nothing.
    sample = Image.fromarray(np.concatenate([np.asarray(p) for p in _spread(pages, 6)], axis=1))
    palette = sample.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)
    indexed = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pages]
    data = io.BytesIO()
    indexed[0].save(
        data, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=True
    )
    return data.getvalue()


def _spread(pages: list[Image.Image], count: int) -> list[Image.Image]:
    # The last page of all is among them: the ticks' and crosses' colours must be in the palette.
    return [pages[round(i)] for i in np.linspace(0, len(pages) - 1, min(count, len(pages)))]


def _page(
    sides: tuple[Sequence[Clip], Sequence[Clip]],
    labels: tuple[str, str],
    before: tuple[int, int],
    starts: int,
    moment: int,
    tile: int,
    at_once: int,
) -> Image.Image:
    """The whole picture at frame ``moment`` of the running clips."""
    columns = math.ceil(math.sqrt(at_once))
    rows = math.ceil(at_once / columns)
    widest = max(round(c.frames.shape[2] * tile / c.frames.shape[1]) for side in sides for c in side)
    side_width = columns * widest + (columns - 1) * _GAP
    title, footer = max(18, side_width // 9), max(12, side_width // 16)
    tasks = {clip.task for side in sides for clip in side} - {""}
    height = title + rows * tile + (rows - 1) * _GAP + (footer + 10 if len(tasks) == 1 else 0)
    page = Image.new("RGB", (2 * side_width + 3 * _GAP, height), _PAPER)
    draw = ImageDraw.Draw(page)
    for side, (clips, label) in enumerate(zip(sides, labels, strict=True)):
        x0 = side * (side_width + 3 * _GAP)
        done = before[side] + sum(c.success and moment >= len(c.frames) for c in clips)
        draw.text((x0 + 2, title / 2), label, _INK, _font(title * 0.6), anchor="lm")
        count = f"{done} of {starts}"
        draw.text((x0 + side_width - 2, title / 2), count, _MUTED, _font(title * 0.6), anchor="rm")
        for i, clip in enumerate(clips):
            corner = (x0 + (i % columns) * (widest + _GAP), title + (i // columns) * (tile + _GAP))
            frame = clip.frames[min(moment, len(clip.frames) - 1)]
            page.paste(Image.fromarray(fit_height(frame, tile)), corner)
            if moment >= len(clip.frames):
                _verdict(draw, corner, tile, clip.success)
    if len(tasks) == 1:
        draw.text((page.width / 2, height - footer / 2 - 4), tasks.pop(), _MUTED, _font(footer), anchor="mm")
    return page


def _verdict(draw: ImageDraw.ImageDraw, corner: tuple[int, int], tile: int, success: bool) -> None:
    """A tick or a cross on a disc in the corner of a tile, drawn since few fonts have both."""
    r = max(8, tile // 9)
    x, y = corner[0] + r + 5, corner[1] + r + 5
    draw.ellipse((x - r, y - r, x + r, y + r), fill=_GOOD if success else _BAD)
    pen = max(2, r // 4)
    if success:
        tick = [(x - 0.5 * r, y + 0.02 * r), (x - 0.12 * r, y + 0.42 * r), (x + 0.52 * r, y - 0.38 * r)]
        draw.line(tick, fill=_PAPER, width=pen, joint="curve")
    else:
        a = 0.4 * r
        draw.line((x - a, y - a, x + a, y + a), fill=_PAPER, width=pen)
        draw.line((x - a, y + a, x + a, y - a), fill=_PAPER, width=pen)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(round(size))
