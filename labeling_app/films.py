"""Films of episodes for people: all cameras side by side, and above them a bar that shows who drove when.

Inputs: a finished episode file. Output: one H.264 MP4 in ``workspace/cache/films/``, made once; it is written
aside and renamed, so a film that exists is whole, and two processes that make the same one do no harm. A film
can be deleted at any time; it is made again when it is next looked at.

Cameras and bar are one picture, so they stay in step on any player, at any speed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from labeling_app.driving import DRIVERS
from pipeline.durable_files import publish
from pipeline.episode import Source
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import Failure

# Part of each film's name: raise it when films come to look different.
FILM_VERSION = 1

PANEL_HEIGHT = 360
BAR_HEIGHT = 20
GAP = 8
BACKGROUND = 24
# The last picture stays for a while before the film starts over: it is what most answers hang on.
HOLD_S = 1.0


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a film's picture, in pixels; all sizes even, as H.264 needs.

    The bar is on top, as players lay their controls over the lower edge. ``panels`` maps a camera to
    (left edge, width); each is ``PANEL_HEIGHT`` high.
    """

    width: int
    panels: dict[str, tuple[int, int]]
    height: int = BAR_HEIGHT + GAP + PANEL_HEIGHT
    panel_top: int = BAR_HEIGHT + GAP


def plan_layout(shapes: dict[str, tuple[int, int]]) -> Layout:
    """The layout for cameras of the given (height, width); proportions are kept."""
    panels: dict[str, tuple[int, int]] = {}
    left = 0
    for camera, (height, width) in shapes.items():
        panel_width = 2 * max(1, round(PANEL_HEIGHT * width / height / 2))
        panels[camera] = (left, panel_width)
        left += panel_width + GAP
    return Layout(left - GAP, panels)


def film_path(entry: EpisodeEntry, folder: Path) -> Path:
    """Where the film of an episode lies; the name changes when the recording, or how films look, does."""
    return folder / f"{entry.id}-{entry.fingerprint[:12]}-v{FILM_VERSION}.mp4"


def make_film(entry: EpisodeEntry, folder: Path) -> Path:
    """The film of a finished episode, made now unless it is there already.

    Raises ``InputError`` when the episode cannot be read and ``Failure`` when it holds no frame or no camera.
    """
    path = film_path(entry, folder)
    if path.exists():
        return path
    with EpisodeReader(entry.path) as reader:
        if len(reader) == 0 or not reader.info.cameras:
            raise Failure(f"{entry.path} has no picture to show: it holds {len(reader)} frames")
        layout = plan_layout({camera: reader.image(camera, 0).shape[:2] for camera in reader.info.cameras})
        folder.mkdir(parents=True, exist_ok=True)
        # One process serves many people, each on a thread of their own.
        aside = folder / f".{path.stem}.{os.getpid()}-{threading.get_ident()}.part"
        try:
            _encode(aside, _pictures(reader, layout), layout, reader.info.rate_hz)
            publish(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    return path


def film_size(film: Path) -> tuple[int, int]:
    """Width and height of a film's picture, in pixels."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        width, height = stream.width, stream.height
    return width, height


def driver_bar(sources: np.ndarray, width: int) -> np.ndarray:
    """The bar that shows who drove, from first frame to last: ``(BAR_HEIGHT, width, 3)`` uint8 RGB."""
    columns = (np.arange(width) * len(sources) // width).clip(0, len(sources) - 1)
    colours = np.array([DRIVERS[Source(int(source))].rgb for source in sources], dtype=np.uint8)
    return np.repeat(colours[columns][None], BAR_HEIGHT, axis=0)


def _pictures(reader: EpisodeReader, layout: Layout) -> Iterator[np.ndarray]:
    """One ``(height, width, 3)`` uint8 picture per frame, read one by one: episodes can be long."""
    length = len(reader)
    bar = driver_bar(np.asarray(reader.sources), layout.width)
    for index in range(length):
        picture = np.full((layout.height, layout.width, 3), BACKGROUND, dtype=np.uint8)
        for camera, (left, width) in layout.panels.items():
            panel = cv2.resize(
                reader.image(camera, index), (width, PANEL_HEIGHT), interpolation=cv2.INTER_CUBIC
            )
            picture[layout.panel_top :, left : left + width] = panel
            _write_name(picture, camera, left, layout.panel_top)
        picture[:BAR_HEIGHT] = bar
        # What is still to come is dim: the edge is the playhead.
        now = round((index + 1) / length * layout.width)
        picture[:BAR_HEIGHT, now:] //= 3
        picture[:BAR_HEIGHT, max(0, now - 3) : now] = 255
        yield picture
    for _ in range(round(HOLD_S * reader.info.rate_hz)):
        yield picture


def _write_name(picture: np.ndarray, camera: str, left: int, top: int) -> None:
    """Writes a camera's name in its panel's corner, bright on dark to be legible on any picture."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (width, height), _ = cv2.getTextSize(camera, font, scale, 1)
    corner = (left + width + 15, top + height + 13)
    cv2.rectangle(picture, (left, top), corner, (BACKGROUND,) * 3, cv2.FILLED)
    cv2.putText(picture, camera, (left + 7, top + height + 6), font, scale, (235,) * 3, 1, cv2.LINE_AA)


def _encode(path: Path, pictures: Iterator[np.ndarray], layout: Layout, rate_hz: float) -> None:
    """Writes pictures as an H.264 MP4 that every browser plays."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(
            "libx264",
            rate=Fraction(rate_hz).limit_denominator(1000),
            options={"crf": "20", "preset": "superfast"},
        )
        stream.width, stream.height, stream.pix_fmt = layout.width, layout.height, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
