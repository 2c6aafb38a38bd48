"""Films: what a player shows is what was recorded."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from labeling_app.film_shelf import FilmShelf
from labeling_app.films import LARGEST_HEIGHT, Film, film_folder, find_film, make_film, shown_size
from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker, picture

P, H = Source.POLICY, Source.INTERVENTION


def decoded(film: Film, number: int) -> np.ndarray:
    """All pictures of one camera of a film, ``(T, height, width, 3)`` uint8."""
    with av.open(str(film.folder / film.cameras[number].file)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(pictures)


def test_a_film_has_every_frame_of_every_camera_at_its_time(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry = make_episode(sources=[P] * 10 + [H] * 10, size=(96, 128))
    film = make_film(entry, workspace.cache / "films")
    assert [camera.camera for camera in film.cameras] == list(entry.info.cameras)
    assert [(span.start, span.end, span.source) for span in film.spans] == [(0, 10, P), (10, 20, H)]
    assert (film.length, film.rate_hz) == (20, 10.0)
    for number, colour in enumerate([(210, 40, 40), (40, 80, 210)]):
        pictures = decoded(film, number)
        assert pictures.shape == (20, 96, 128, 3)
        for i in (0, 7, 19):
            assert np.abs(pictures[i].astype(int) - picture(i, 20, (96, 128), colour)).mean() < 6
        with av.open(str(film.folder / film.cameras[number].file)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            times = [frame.time for frame in container.decode(stream)]
        assert times == pytest.approx([i / 10 for i in range(20)])


def test_a_browser_can_start_before_it_has_everything(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    film = make_film(make_episode(), workspace.cache / "films")
    data = (film.folder / film.cameras[0].file).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    ("size", "shown"), [((480, 640), (640, 480)), ((1080, 1920), (960, 540)), ((49, 65), (64, 48))]
)
def test_pictures_are_not_too_tall_and_even(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert shown_size(*size) == shown
    assert shown[1] <= LARGEST_HEIGHT


def test_odd_sizes_and_fractional_rates_can_be_shown(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry = make_episode(size=(49, 65), rate_hz=12.5)
    film = make_film(entry, workspace.cache / "films")
    assert decoded(film, 0).shape == (entry.length, 48, 64, 3)


def test_a_film_is_made_once_and_again_when_it_was_deleted(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry, films = make_episode(), workspace.cache / "films"
    assert find_film(entry, films) is None
    film = make_film(entry, films)
    stamp = film.folder.stat().st_mtime_ns
    assert make_film(entry, films) == film == find_film(entry, films)
    assert film.folder.stat().st_mtime_ns == stamp
    for file in film.folder.iterdir():
        file.unlink()
    assert make_film(entry, films) == film


def test_a_damaged_recording_is_refused_in_one_line_and_leaves_nothing(
    workspace: Workspace, make_episode: EpisodeMaker
) -> None:
    entry, films = make_episode(size=(120, 160)), workspace.cache / "films"
    data = entry.path.read_bytes()
    at = data.rindex(b"\xff\xd8\xff")
    entry.path.write_bytes(data[:at] + bytes(64) + data[at + 64 :])
    with pytest.raises(InputError, match="damaged") as caught:
        make_film(entry, films)
    assert "\n" not in str(caught.value)
    assert list(films.glob("*")) == []


def test_a_shelf_makes_one_film_for_many_who_ask(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    entry = make_episode()
    shelf = FilmShelf(workspace.cache / "films")
    waiting = [shelf.prepare(entry) for _ in range(5)]
    film = shelf.film(entry)
    assert all(future.result() == film for future in waiting)
    assert len(list(shelf.folder.iterdir())) == 1


def test_a_shelf_keeps_the_films_looked_at_last(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    entries = [make_episode() for _ in range(3)]
    shelf = FilmShelf(workspace.cache / "films", kept=2)
    for age, entry in enumerate(entries):
        film = shelf.film(entry)
        os.utime(film.folder, (1000 - age, 1000 - age))
    shelf.film(entries[2])  # looked at again
    shelf.tidy()
    left = set(shelf.folder.iterdir())
    assert left == {film_folder(entries[number], shelf.folder) for number in (0, 2)}


def test_a_film_cannot_be_written_where_a_file_is(tmp_path: Path, make_episode: EpisodeMaker) -> None:
    (tmp_path / "films").write_text("in the way")
    with pytest.raises(InputError):
        FilmShelf(tmp_path / "films").film(make_episode())
