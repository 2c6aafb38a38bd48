"""Import of our own files: episodes as they are, and the round trip through robomimic."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.episode_file import EpisodeReader
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.exchange.write_robomimic import write_robomimic
from pipeline.workspace import Workspace
from tests.pipeline.exchange.exported import record
from tests.pipeline.exchange.imports import assert_pictures, assert_restored, bring, reader_of, snapshot


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """Two episodes, one of them imported before and so with columns of another format."""
    workspace = Workspace(tmp_path / "first").create()
    foreign = {"obs/object": np.arange(40, dtype=np.float64).reshape(8, 5)}
    folder = workspace.episode_path("pick up the red cube", "e0").parent
    record(folder, "e0", 6, seed=1, operator_mark="failure", extra={"seed": 7})
    record(folder, "e1", 8, seed=2, foreign=foreign, missing=("tool_wrench",), policy_checkpoint="c2")
    return workspace


@pytest.mark.parametrize("space", [ActionSpace.TWIST, ActionSpace.ABSOLUTE_POSE])
def test_robomimic_round_trip(lab: Workspace, tmp_path: Path, space: ActionSpace) -> None:
    entries = lab.list_episodes()
    path = write_robomimic(entries, tmp_path / "out.hdf5", action_space=space)
    workspace = Workspace(tmp_path / "second")
    results = bring(workspace, path)
    assert [r.imported.id for r in results if r.imported] == ["e0", "e1"]
    for entry in entries:
        with EpisodeReader(entry.path) as original, reader_of(workspace, entry.id) as copy:
            assert_restored(copy, original)
            assert copy.foreign_names == original.foreign_names
            for name in original.foreign_names:
                np.testing.assert_array_equal(copy.foreign(name), original.foreign(name))
            for camera in original.info.cameras:
                assert_pictures(copy.images(camera), original.images(camera))
    before = snapshot(lab.episodes), snapshot(workspace.episodes)
    for where in (lab, workspace):
        assert [r.imported.status for r in bring(where, path) if r.imported] == ["present"] * 2
    assert (snapshot(lab.episodes), snapshot(workspace.episodes)) == before


def test_our_own_files_come_in_as_they_are(lab: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "second")
    results = bring(workspace, lab.root)
    assert [r.imported.status for r in results if r.imported] == ["imported"] * 2
    for entry in lab.list_episodes():
        assert workspace.find(entry.id).path.read_bytes() == entry.path.read_bytes()
    before = snapshot(workspace.episodes)
    again = bring(workspace, lab.root)
    assert [r.imported.status for r in again if r.imported] == ["present"] * 2
    assert snapshot(workspace.episodes) == before
    refused = bring(workspace, lab.root, task="something else")
    assert all(r.refused is not None and "taken as it is" in r.refused for r in refused)


def test_of_two_paths_with_the_same_recording_the_first_wins(lab: Workspace, tmp_path: Path) -> None:
    entry = lab.find("e0")
    large = write_robomimic([entry], tmp_path / "large.hdf5", image_size=1500)
    small = write_robomimic([entry], tmp_path / "small.hdf5", image_size=8)
    for paths, side in (((large, small), 1500), ((small, large), 8)):
        workspace = Workspace(tmp_path / f"lab {side}")
        results = bring(workspace, *paths)
        assert [r.imported.status for r in results if r.imported] == ["imported", "present"]
        with reader_of(workspace, "e0") as episode:
            assert episode.image(entry.info.cameras[0], 0).shape == (side, side, 3)


def test_another_recording_of_the_same_id_is_refused(lab: Workspace, tmp_path: Path) -> None:
    other = tmp_path / "other"
    record(other, "e0", 5, seed=9)
    before = snapshot(lab.episodes)
    (result,) = bring(lab, other)
    assert result.refused is not None and "e0" in result.refused
    path = write_robomimic([*lab.list_episodes()], tmp_path / "out.hdf5")
    shutil.move(lab.find("e0").path, tmp_path / "e0.h5")
    record(lab.episodes / "pick-up-the-red-cube", "e0", 5, seed=9)
    first, second = bring(lab, path)
    assert first.refused is not None and "another episode e0" in first.refused
    assert second.imported is not None and second.imported.status == "present"
    assert before.keys() == snapshot(lab.episodes).keys()
