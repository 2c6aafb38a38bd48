"""A disk that cannot be read now is not a damaged episode."""

from __future__ import annotations

import errno
from pathlib import Path

import h5py
import pytest

from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError
from tests.pipeline.episodes import make_frames, make_info, write_episode
from workflows.step_faults import may_pass

# As h5py 3.16 says it, with an EIO of the kernel while a data set is read.
SAID = (
    '"Unable to synchronously open object (file read failed: time = Sat Nov 21 15:46:36 2026\n, filename = '
    "'episode-000.h5', file descriptor = 3, errno = {}, error message = 'said', buf = 0x560c6372b2d0, total "
    'read size = 512, bytes this sub-read = 512, offset = 7941)"'
)


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    return write_episode(tmp_path / "episode.h5", make_frames(3), make_info())


def read(path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> InputError:
    """What reading the actions raises while HDF5 raises ``error`` for every data set."""

    def broken(self: h5py.File, name: str) -> None:
        raise error

    with EpisodeReader(path) as reader, monkeypatch.context() as patch:
        patch.setattr(h5py.File, "__getitem__", broken)
        with pytest.raises(InputError) as caught:
            _ = reader.actions
    return caught.value


@pytest.mark.parametrize("kind", [KeyError, OSError, RuntimeError])
def test_an_io_error_within_a_file_may_pass(
    episode: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    said = read(episode, monkeypatch, kind(SAID.format(errno.EIO)))
    assert str(said) == f"{episode} cannot be read now: Input/output error" and may_pass(said)
    assert isinstance(said.__cause__, OSError) and isinstance(said.__cause__.__cause__, kind)


@pytest.mark.parametrize(
    "text",
    [
        "Unable to synchronously open object (bad heap free list)",
        SAID.format(0),
        SAID.format(errno.EINVAL),
    ],
)
def test_damage_is_called_damage_and_does_not_pass(
    episode: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    said = read(episode, monkeypatch, KeyError(text))
    assert str(said) == f"{episode} is damaged or incomplete: {KeyError(text)}" and not may_pass(said)
