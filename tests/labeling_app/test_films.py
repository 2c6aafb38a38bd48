"""Films: what a player shows is what was recorded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from labeling_app.driving import DRIVERS
from labeling_app.films import BAR_HEIGHT, GAP, HOLD_S, PANEL_HEIGHT, film_path, film_size, make_film
from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker

P, H = Source.POLICY, Source.INTERVENTION


def decoded(film: Path) -> np.ndarray:
    """All pictures of a film, ``(T, height, width, 3)`` uint8."""
    with av.open(str(film)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(pictures)


def test_a_film_shows_all_cameras_side_by_side_in_step_with_the_bar(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry = make_episode(sources=[P] * 10 + [H] * 10)
    film = make_film(entry, workspace.cache / "films")
    pictures = decoded(film)
    assert len(pictures) == entry.length + round(HOLD_S * entry.info.rate_hz)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == entry.info.rate_hz
    # 48×64 cameras, 360 pixels high: 480 wide each.
    assert pictures.shape[1:3] == (BAR_HEIGHT + GAP + PANEL_HEIGHT, 480 + GAP + 480)
    assert film_size(film) == (pictures.shape[2], pictures.shape[1])

    last = pictures[entry.length - 1].astype(int)
    bar = last[BAR_HEIGHT // 2]
    assert np.abs(bar[100] - DRIVERS[P].rgb).max() < 25
    assert np.abs(bar[800] - DRIVERS[H].rgb).max() < 25
    # In mid-film the playhead stands in the middle, and what is to come is dim.
    middle = pictures[9].astype(int)[BAR_HEIGHT // 2]
    assert np.abs(middle[100] - DRIVERS[P].rgb).max() < 25
    assert middle[800].sum() < 0.5 * sum(DRIVERS[H].rgb)
    # The squares (red on the table camera, blue on the wrist's) have arrived at their panels' right edges.
    row = BAR_HEIGHT + GAP + PANEL_HEIGHT // 2 + 20
    assert last[row, 470, 0] > 150 > last[row, 470, 2]
    assert last[row, 480 + GAP + 470, 2] > 150 > last[row, 480 + GAP + 470, 0]
    first = pictures[0].astype(int)
    assert np.ptp(first[row, 470]) < 30, "the table is grey where the square has not been yet"


def test_a_film_is_made_once_and_nothing_is_left_beside_it(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry = make_episode()
    folder = workspace.cache / "films"
    film = make_film(entry, folder)
    made = film.stat().st_mtime_ns
    assert make_film(entry, folder) == film == film_path(entry, folder)
    assert film.stat().st_mtime_ns == made
    assert list(folder.iterdir()) == [film]


def test_several_people_may_want_the_same_film_at_once(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry = make_episode()
    folder = workspace.cache / "films"
    with ThreadPoolExecutor(4) as pool:
        films = set(pool.map(lambda _: make_film(entry, folder), range(4)))
    assert len(films) == 1
    assert list(folder.iterdir()) == list(films)
    assert len(decoded(films.pop())) > entry.length


@pytest.mark.parametrize("size", [(30, 40), (33, 47), (84, 84)])
def test_cameras_of_any_number_and_size_make_a_playable_film(
    workspace: Workspace, make_episode: EpisodeMaker, size: tuple[int, int]
) -> None:
    one = make_episode(cameras=("table",), size=size, sources=[P] * 3)
    three = make_episode(cameras=("table", "wrist", "side"), size=size, sources=[P] * 3)
    widths = [decoded(make_film(entry, workspace.cache / "films")).shape[2] for entry in (one, three)]
    assert widths[1] == 3 * widths[0] + 2 * GAP


def test_a_damaged_episode_gives_one_line_and_no_half_film(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry = make_episode(size=(120, 160), sources=[P] * 30)
    data = entry.path.read_bytes()
    at = data.rindex(b"\xff\xd8\xff")  # the last image's start
    entry.path.write_bytes(data[:at] + bytes(64) + data[at + 64 :])
    folder = workspace.cache / "films"
    with pytest.raises(InputError, match="damaged") as caught:
        make_film(entry, folder)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []
