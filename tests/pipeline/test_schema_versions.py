"""Every released version of the format stays readable: one recorded file of each is kept here."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.episode import SCHEMA_VERSION, STATE_FIELDS
from pipeline.episode_file import EpisodeReader, read_entry
from pipeline.errors import InputError
from tests.pipeline.episodes import make_frames, make_info, write_episode

GOLDEN = Path(__file__).parent / "golden"


def test_there_is_a_file_of_every_version() -> None:
    """Who raises the version adds one, written by the last release before."""
    names = {path.name for path in GOLDEN.glob("*.h5")}
    assert names == {f"episode-v{version}.h5" for version in range(1, SCHEMA_VERSION + 1)}


def test_version_1_reads_as_it_was_recorded() -> None:
    """The frames are made from a seed, so what was recorded is known."""
    with EpisodeReader(GOLDEN / "episode-v1.h5") as episode:
        assert episode.info == make_info("episode-v1", extra={"scene_seed": 4}, operator_mark="success")
        assert episode.computed_fingerprint() == episode.fingerprint == "85756c91536d29e40e2082f180fd10fd"
        frames = make_frames(3, seed=7)
        for field in STATE_FIELDS:
            np.testing.assert_array_equal(
                episode.state(field.name), np.stack([frame.state[field.name] for frame in frames])
            )
        np.testing.assert_array_equal(episode.actions, np.stack([frame.action for frame in frames]))
        assert episode.timestamps_ns.tolist() == [frame.timestamp_ns for frame in frames]
        for i, frame in enumerate(frames):
            difference = episode.image("table", i).astype(int) - frame.images["table"]
            assert np.abs(difference).max() <= 12  # JPEG


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """In one line that says what to do."""
    path = write_episode(tmp_path / "e0001.h5", make_frames(1), make_info())
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = SCHEMA_VERSION + 1
    with pytest.raises(InputError, match=f"reads up to {SCHEMA_VERSION}: update it"):
        read_entry(path)
