"""The film strip: the frames it says, at the times it says, and a bar of who drove when."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from workflows.film_strip import (
    SOURCE_COLOURS,
    Film,
    frames_that_fit,
    png_bytes,
    read_strip,
    runs,
    terminal_lines,
)

SOURCES = [Source.POLICY] * 10 + [Source.INTERVENTION] * 20 + [Source.POLICY] * 10


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Five of forty frames of a corrected rollout."""
    entry = EpisodeMaker(Workspace(tmp_path).create())(sources=SOURCES)
    return read_strip((entry.path, 5))


def picture(film: Film) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png_bytes(film, "success"))).convert("RGB"))


def is_colour(image: np.ndarray, colour: tuple[int, int, int]) -> Any:
    return np.all(np.abs(image.astype(int) - colour) < 3, axis=-1)


def test_frames_are_evenly_spaced_with_the_first_and_the_last(film: Film, tmp_path: Path) -> None:
    assert film.rows.tolist() == [0, 10, 20, 29, 39]
    assert {name: len(images) for name, images in film.images.items()} == {"table": 5, "wrist": 5}
    assert film.seconds == 4.0
    short = EpisodeMaker(Workspace(tmp_path / "b").create())(sources=[Source.TELEOP] * 2)
    assert read_strip((short.path, 8)).rows.tolist() == [0, 1]
    with pytest.raises(InputError, match="no episode file"):
        read_strip((tmp_path / "none.h5", 8))


def test_the_picture_shows_every_frame_and_the_bar_stands_below_them(film: Film) -> None:
    image = picture(film)
    policy = is_colour(image, SOURCE_COLOURS[Source.POLICY])
    corrected = is_colour(image, SOURCE_COLOURS[Source.INTERVENTION])
    assert not is_colour(image, SOURCE_COLOURS[Source.TELEOP]).any(), "nobody teleoperated"
    row = int(np.argmax(corrected.sum(axis=1)))
    bar = np.flatnonzero(policy[row] | corrected[row])
    orange = np.flatnonzero(corrected[row])
    # A person drove in the frames 10 to 29 of 0 to 39.
    start, end = (np.array([orange[0], orange[-1]]) - bar[0]) / (bar[-1] - bar[0])
    assert start == pytest.approx(9.5 / 39, abs=0.02) and end == pytest.approx(29.5 / 39, abs=0.02)
    # The square of the table's camera moves to the right, from picture to picture: red, five times.
    red = is_colour(image, (210, 40, 40))
    columns = np.flatnonzero(np.convolve(red[: row - 100].any(axis=0), np.ones(25), "same") > 0)
    assert (np.diff(columns) > 1).sum() + 1 == 5


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_the_terminal_gets_lines_of_its_width_in_colour(tmp_path: Path, width: int) -> None:
    entry = EpisodeMaker(Workspace(tmp_path).create())(sources=SOURCES)
    film = read_strip((entry.path, frames_that_fit(width)))
    lines = list(terminal_lines(film, width))
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(len(line) for line in plain[:-1]) <= width
    assert plain[0] == "table" and "wrist" in plain
    assert any("▀" in line for line in plain)
    assert "0.0 s" in plain[-3] and "3.9 s" in plain[-3]
    assert "policy drove" in plain[-1] and "person corrected" in plain[-1] and "person drove" not in plain[-1]
    red, green, blue = SOURCE_COLOURS[Source.INTERVENTION]
    orange = lines[-2].split(f"\x1b[48;2;{red};{green};{blue}m")[1].split("\x1b")[0]
    # Half of the way from the middle of the first picture to that of the last.
    way = len(plain[-2]) - ((width + 1) // len(film.rows) - 1)
    assert len(orange) == pytest.approx(way * 20 / 39, abs=3)


def test_runs_are_stretches_of_one_driver() -> None:
    assert list(runs(np.array([1, 1, 2, 2, 2, 0], np.uint8))) == [(0, 1, 1), (2, 4, 2), (5, 5, 0)]
    assert list(runs(np.array([0], np.uint8))) == [(0, 0, 0)]
