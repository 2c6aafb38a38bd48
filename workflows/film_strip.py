"""One episode at a glance: evenly spaced frames of each camera, and a bar of who drove when.

As a PNG for a report or a colleague, and as text with colours for a terminal.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError

Colour = tuple[int, int, int]

# The colours of the reports; they can be told apart by the colour-blind too.
SOURCE_COLOURS: dict[Source, Colour] = {
    Source.TELEOP: (0, 158, 115),
    Source.POLICY: (86, 180, 233),
    Source.INTERVENTION: (230, 159, 0),
}
SOURCE_WORDS = {
    Source.TELEOP: "person drove",
    Source.POLICY: "policy drove",
    Source.INTERVENTION: "person corrected",
}
_INK, _PAPER, _MUTED = (31, 35, 40), (255, 255, 255), (100, 108, 118)
_GOOD, _BAD = (0, 130, 95), (190, 70, 0)
_GAP, _MARGIN = 6, 18  # pixels between frames, around everything


@dataclass(frozen=True)
class Film:
    """What is drawn of an episode.

    ``images`` maps each camera to N frames, uint8 (H, W, 3) RGB; ``rows`` (N,) are their frame numbers.
    ``sources`` (T,) uint8 tells who drove in every frame.
    """

    title: str
    task: str
    images: dict[str, list[np.ndarray]]
    rows: np.ndarray
    sources: np.ndarray
    rate_hz: float

    @property
    def seconds(self) -> float:
        """How long the episode lasts."""
        return len(self.sources) / self.rate_hz


def read_strip(job: tuple[Path, int]) -> Film:
    """``(path, N)``: N evenly spaced frames of an episode file, the first and the last among them.

    Fewer where the episode has fewer. Raises ``InputError`` for a file or image that cannot be read.
    """
    path, count = job
    with EpisodeReader(path) as reader:
        if len(reader) == 0:
            raise InputError(f"{path} has no frames")
        rows = np.unique(np.linspace(0, len(reader) - 1, count).round().astype(int))
        images = {c: [reader.image(c, int(row)) for row in rows] for c in reader.info.cameras}
        info = reader.info
        return Film(info.id, info.task, images, rows, reader.sources, info.rate_hz)


def png_bytes(film: Film, outcome: str, height: int = 150) -> bytes:
    """The film strip as a PNG; ``height`` of a frame in pixels, ``outcome`` a word for the title."""
    rows = {name: [_fitted(image, height) for image in images] for name, images in film.images.items()}
    widths = [max(row[i].width for row in rows.values()) for i in range(len(film.rows))]
    label = max((_width(name, 15) for name in rows), default=0) + 14
    lefts = np.cumsum([_MARGIN + label, *(width + _GAP for width in widths)])
    title, times, bar, legend = 58, 26, 24, 40
    page = Image.new(
        "RGB",
        (
            max(int(lefts[-1]) - _GAP + _MARGIN, 560),
            title + len(rows) * (height + _GAP) + times + bar + legend,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(page)
    _title(draw, film, outcome, page.width)
    y = title
    for name, images in rows.items():
        draw.text((_MARGIN, y + height / 2), name, _INK, _font(15), anchor="lm")
        for left, image in zip(lefts, images, strict=False):
            page.paste(image, (int(left), y))
        y += height + _GAP
    centres = [left + width / 2 for left, width in zip(lefts, widths, strict=False)]
    for centre, row in zip(centres, film.rows, strict=True):
        draw.text((centre, y + 9), f"{row / film.rate_hz:.1f} s", _INK, _font(14), anchor="mm")
    y += times
    _bar(draw, film, centres, y, bar)
    draw.text((_MARGIN, y + bar / 2), "who", _INK, _font(15), anchor="lm")
    _legend(draw, film, int(lefts[0]), y + bar + legend // 2)
    data = io.BytesIO()
    page.save(data, format="PNG", optimize=True)
    return data.getvalue()


def _title(draw: ImageDraw.ImageDraw, film: Film, outcome: str, width: int) -> None:
    draw.text((_MARGIN, 20), film.task, _INK, _font(20), anchor="lm")
    colour = {"success": _GOOD, "failure": _BAD}.get(outcome, _MUTED)
    draw.text((width - _MARGIN, 20), outcome, colour, _font(20), anchor="rm")
    said = f"{film.title}  ·  {film.seconds:.1f} s  ·  {len(film.sources)} frames at {film.rate_hz:g} Hz"
    draw.text((_MARGIN, 43), said, _MUTED, _font(14), anchor="lm")


def _bar(draw: ImageDraw.ImageDraw, film: Film, centres: list[float], y: int, height: int) -> None:
    """Who drove in each frame, each moment below the picture of that moment; a notch below each picture."""
    xs = np.interp(np.arange(len(film.sources)), film.rows, centres)
    edges = np.concatenate(([xs[0] - 4], (xs[1:] + xs[:-1]) / 2, [xs[-1] + 4]))
    for first, last, source in runs(film.sources):
        left, right = edges[first], edges[last + 1]
        draw.rectangle((left, y, right, y + height), fill=_colour(source))
        words = SOURCE_WORDS.get(Source(source), "") if source in set(Source) else "damaged"
        if _width(words, 14) + 8 < right - left:
            draw.text(((left + right) / 2, y + height / 2), words, _INK, _font(14), anchor="mm")
    for centre in centres:
        draw.line((centre, y - 6, centre, y - 1), fill=_MUTED, width=1)


def _legend(draw: ImageDraw.ImageDraw, film: Film, x: int, y: int) -> None:
    for source, words in SOURCE_WORDS.items():
        share = float((film.sources == source).mean())
        if share == 0:
            continue
        draw.rectangle((x, y - 7, x + 14, y + 7), fill=SOURCE_COLOURS[source])
        text = f"{words}, {film.seconds * share:.1f} s"
        draw.text((x + 21, y), text, _INK, _font(14), anchor="lm")
        x += 21 + _width(text, 14) + 26


def frames_that_fit(width: int) -> int:
    """How many pictures stand side by side in ``width`` characters and can still be made out."""
    return max(2, (width + 1) // 20)


def terminal_lines(film: Film, width: int) -> Iterator[str]:
    """The film strip as lines of at most ``width`` characters with 24-bit colours, two pixels in each."""
    count = len(film.rows)
    tile = max(1, (width + 1) // count - 1)
    for name, images in film.images.items():
        yield name
        yield from _half_blocks(images, tile)
    yield " ".join(f"{row / film.rate_hz:.1f} s".center(tile) for row in film.rows).rstrip()
    # The same scale as the pictures above: from the middle of the first to the middle of the last.
    middles = [i * (tile + 1) + tile / 2 for i in range(count)]
    at = np.interp(np.arange(count * (tile + 1) - 1) + 0.5, middles, film.rows)
    sources = film.sources[at.round().astype(int)]
    yield (
        "".join(f"{_background(_colour(s))}{' ' * (last - first + 1)}" for first, last, s in runs(sources))
        + _RESET
    )
    shown = [source for source in Source if (film.sources == source).any()]
    yield "  ".join(f"{_foreground(SOURCE_COLOURS[s])}█{_RESET} {SOURCE_WORDS[s]}" for s in shown)


def runs(sources: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(first, last, source) of each stretch of frames with one driver."""
    starts = np.concatenate(([0], np.flatnonzero(np.diff(sources.astype(int))) + 1, [len(sources)]))
    for first, end in pairwise(starts):
        yield int(first), int(end) - 1, int(sources[first])


_RESET = "\x1b[0m"


def _half_blocks(images: list[np.ndarray], tile: int) -> Iterator[str]:
    """Pictures side by side: the upper half of each character in one colour, the lower in another."""
    height = max(2, round(tile * images[0].shape[0] / images[0].shape[1]))
    height += height % 2
    small = [
        np.asarray(Image.fromarray(image).resize((tile, height), Image.Resampling.BOX)) for image in images
    ]
    for y in range(0, height, 2):
        yield " ".join(
            "".join(
                f"{_foreground(tuple(image[y, x]))}{_background(tuple(image[y + 1, x]))}▀"
                for x in range(tile)
            )
            + _RESET
            for image in small
        )


def _foreground(colour: Colour) -> str:
    return f"\x1b[38;2;{colour[0]};{colour[1]};{colour[2]}m"


def _background(colour: Colour) -> str:
    return f"\x1b[48;2;{colour[0]};{colour[1]};{colour[2]}m"


def _colour(source: int) -> Colour:
    return SOURCE_COLOURS.get(Source(source), _MUTED) if source in set(Source) else _MUTED


def _fitted(image: np.ndarray, height: int) -> Image.Image:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(round(size))


def _width(text: str, size: float) -> int:
    return round(_font(size).getlength(text))
