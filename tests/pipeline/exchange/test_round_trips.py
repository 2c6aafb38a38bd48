"""Episodes out to another format and in again: field by field, what comes back is what was recorded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.episode import STATE_FIELDS
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.exchange.action_spaces import ActionSpace, from_space, to_space
from pipeline.exchange.conversion import ImportOptions, convert
from pipeline.exchange.formats import Format, list_episodes, read_episode
from pipeline.exchange.write_diffusion_policy import STATE_NAMES, write_diffusion_policy
from pipeline.exchange.write_robomimic import Compression, write_robomimic
from pipeline.lerobot_dataset import export_dataset
from pipeline.workspace import Workspace
from tests.pipeline.exchange.exported import images_of, record
from tests.pipeline.exchange.imports import assert_pictures, assert_restored, bring, reader_of

MISSING = ("joint_velocities", "tool_wrench")

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
seeds = st.integers(0, 2**32 - 1)
spaces = st.sampled_from(ActionSpace)


@st.composite
def recordings(draw: st.DrawFn) -> dict[str, object]:
    """What :func:`record` takes besides the folder, the id and the length."""
    cameras = draw(st.sampled_from([("table", "wrist"), ("table",), ("left-1", "wrist.2"), ()]))
    return {
        "seed": draw(seeds),
        "cameras": cameras,
        "task": draw(texts) + "x",
        "operator": draw(texts) + "y",
        "robot": draw(st.sampled_from(["kinova_gen3", "simulated_gen3"])),
        "rate_hz": draw(st.sampled_from([5.0, 10.0, 15.0, 29.97])),
        "policy_checkpoint": draw(st.none() | texts),
        "operator_mark": draw(st.sampled_from([None, "success", "failure"])),
        "truncated": draw(st.booleans()),
        "extra": draw(st.dictionaries(texts, st.integers(-9, 9) | texts, max_size=2)),
        "missing": tuple(sorted(draw(st.sets(st.sampled_from(MISSING))))),
        "foreign": draw(st.sampled_from([None, ("reward",), ("obs/depth", "flag")])),
    }


def recorded(folder: Path, drawn: list[dict], lengths: list[int]) -> list[EpisodeEntry]:
    """The drawn recordings, all with the cameras and the rate of the first."""
    folder.mkdir()
    entries = []
    for i, (values, length) in enumerate(zip(drawn, lengths, strict=False)):
        arguments = {**values, "cameras": drawn[0]["cameras"], "rate_hz": drawn[0]["rate_hz"]}
        names = arguments.pop("foreign") or ()
        columns = {name: np.arange(2.0 * length).reshape(length, 2) + k for k, name in enumerate(names)}
        entries.append(record(folder, f"e{i}", length, foreign=columns, **arguments))
    return entries


def brought_back(path: Path, root: Path) -> Workspace:
    """A workspace with all that is in an export; in this process, as hypothesis does it often."""
    workspace = Workspace(root).create()
    for reference in list_episodes(path, Format.AUTO):
        episode = read_episode(reference)
        assert convert(episode, str(reference), workspace, ImportOptions()).status == "imported"
    return workspace


@settings(max_examples=12, deadline=None)
@given(
    st.lists(recordings(), min_size=1, max_size=2),
    st.lists(st.integers(1, 40), min_size=2, max_size=2),
    spaces,
    st.sampled_from(Compression),
)
def test_robomimic(drawn: list[dict], lengths: list[int], space: ActionSpace, packing: Compression) -> None:
    with tempfile.TemporaryDirectory() as name:
        entries = recorded(Path(name) / "recorded", drawn, lengths)
        out = write_robomimic(entries, Path(name) / "o.hdf5", action_space=space, compression=packing)
        workspace = brought_back(out, Path(name) / "lab")
        assert len(workspace.list_episodes()) == len(entries)
        for i, entry in enumerate(entries):
            with reader_of(workspace, entry.id) as copy, EpisodeReader(entry.path) as original:
                assert_restored(copy, original)
                assert copy.foreign_names == original.foreign_names
                for column in original.foreign_names:
                    np.testing.assert_array_equal(copy.foreign(column), original.foreign(column))
                for camera in entry.info.cameras:
                    assert_pictures(copy.images(camera), original.images(camera))
                pose, joints = copy.state("tool_pose"), copy.state("joint_positions")
                again = to_space(space, copy.actions, pose, joints, entry.info.rate_hz)
                with h5py.File(out) as file:
                    exported = file[f"data/demo_{i}/actions_unscaled"][:]
                np.testing.assert_array_equal(exported, again)
                if space is not ActionSpace.JOINT_POSITIONS:
                    twist = from_space(space, exported, pose, joints, entry.info.rate_hz)
                    tolerance = 1e-6 * np.abs(original.actions).max() + 1e-6 * entry.info.rate_hz
                    np.testing.assert_allclose(twist, original.actions, rtol=0, atol=tolerance)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(recordings(), min_size=1, max_size=3),
    st.lists(st.integers(1, 70), min_size=3, max_size=3),
    spaces,
)
def test_diffusion_policy(drawn: list[dict], lengths: list[int], space: ActionSpace) -> None:
    with tempfile.TemporaryDirectory() as name:
        entries = recorded(Path(name) / "recorded", drawn, lengths)
        out = write_diffusion_policy(entries, Path(name) / "o.zarr", action_space=space)
        root = zarr.open_group(out, mode="r")
        arrays = {key: np.asarray(array[:]) for key, array in root["data"].arrays()}  # type: ignore[union-attr]  # a group
        ends = np.asarray(root["meta/episode_ends"])
        assert ends[-1] == sum(entry.length for entry in entries)
        for entry, end in zip(entries, ends, strict=True):
            rows = slice(end - entry.length, end)
            with EpisodeReader(entry.path) as reader:
                pose, joints = reader.state("tool_pose"), reader.state("joint_positions")
                expected = to_space(space, reader.actions, pose, joints, entry.info.rate_hz)
                np.testing.assert_array_equal(arrays["action"][rows], expected)
                np.testing.assert_array_equal(arrays["recorded_action"][rows], reader.actions)
                np.testing.assert_array_equal(arrays["policy_action"][rows], reader.policy_actions)
                np.testing.assert_array_equal(arrays["source"][rows], reader.sources)
                np.testing.assert_array_equal(arrays["timestamp_ns"][rows], reader.timestamps_ns)
                for field in STATE_FIELDS:
                    np.testing.assert_array_equal(
                        arrays[STATE_NAMES[field.name]][rows], reader.state(field.name)
                    )
            for camera in entry.info.cameras:
                np.testing.assert_array_equal(arrays[camera][rows], images_of(entry, camera))


@pytest.mark.parametrize("space", ActionSpace)
def test_lerobot(space: ActionSpace, tmp_path: Path) -> None:
    (tmp_path / "recorded").mkdir()
    entries = [
        record(tmp_path / "recorded", "one", 12, operator_mark="failure", extra={"seed": 3}),
        record(tmp_path / "recorded", "two", 5, seed=1, policy_checkpoint="p", missing=MISSING),
    ]
    out = export_dataset(entries, tmp_path / "dataset", action_space=space, workers=1)
    workspace = Workspace(tmp_path / "lab").create()
    assert [result.refused for result in bring(workspace, out)] == [None, None]
    for entry in entries:
        with reader_of(workspace, entry.id) as copy, EpisodeReader(entry.path) as original:
            assert_restored(copy, original)
            for camera in entry.info.cameras:
                difference = copy.images(camera).astype(float) - original.images(camera)
                assert np.abs(difference).mean() < 6  # unlike pictures of 24 pixels, hard on a video codec


def test_what_came_back_is_not_brought_in_again(tmp_path: Path) -> None:
    (tmp_path / "recorded").mkdir()
    entries = [record(tmp_path / "recorded", name, 5, seed=i) for i, name in enumerate("ab")]
    out = write_robomimic(entries, tmp_path / "out.hdf5")
    workspace = Workspace(tmp_path / "lab").create()
    for status in ("imported", "present"):
        results = bring(workspace, out)
        assert [r.imported.status for r in results if r.imported is not None] == [status, status]
    # An export of the copies holds the same numbers again.
    again = write_robomimic(workspace.list_episodes(), tmp_path / "again.hdf5")
    with h5py.File(out) as first, h5py.File(again) as second:
        for demo in first["data"]:
            for name in ("actions", "actions_unscaled", "obs/robot0_eef_quat", "recap/policy_action"):
                np.testing.assert_array_equal(first[f"data/{demo}/{name}"], second[f"data/{demo}/{name}"])
