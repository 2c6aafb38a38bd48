"""Diffusion policy's Zarr: read back by Zarr, every number and pixel, in the version its reader knows."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.action_statistics import ActionStatistics
from pipeline.episode import EpisodeInfo
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, to_space
from pipeline.exchange.write_diffusion_policy import STATE_NAMES, write_diffusion_policy
from tests.pipeline.exchange.exported import images_of, names_in, record

LENGTHS = (40, 1, 34)
OUTCOMES = {"e0": "success", "e2": "failure"}


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> list[EpisodeEntry]:
    """Three episodes; the last lacks velocities."""
    folder = tmp_path_factory.mktemp("recorded")
    return [
        record(folder, f"e{i}", length, seed=i, missing=("joint_velocities",) if i == 2 else ())
        for i, length in enumerate(LENGTHS)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("space", ActionSpace)
def test_zarr_reads_back_every_frame(
    episodes: list[EpisodeEntry], space: ActionSpace, tmp_path: Path
) -> None:
    out = write_diffusion_policy(episodes, tmp_path / "out.zarr", outcomes=OUTCOMES, action_space=space)
    root = zarr.open_group(out, mode="r")
    data = root["data"]
    assert isinstance(data, zarr.Group)
    ends = np.asarray(root["meta/episode_ends"])
    assert ends.dtype == np.int64
    np.testing.assert_array_equal(ends, np.cumsum(LENGTHS))
    for entry, end in zip(episodes, ends, strict=True):
        rows = slice(end - entry.length, end)

        def column(name: str, rows: slice = rows) -> np.ndarray:
            array = data[name]
            assert isinstance(array, zarr.Array)
            return np.asarray(array[rows])

        with EpisodeReader(entry.path) as reader:
            pose, joints = reader.state("tool_pose"), reader.state("joint_positions")
            expected = to_space(space, reader.actions, pose, joints, entry.info.rate_hz)
            np.testing.assert_array_equal(column("action"), expected)
            for field, name in STATE_NAMES.items():
                np.testing.assert_array_equal(column(name), reader.state(field))
            np.testing.assert_array_equal(column("recorded_action"), reader.actions)
            np.testing.assert_array_equal(column("policy_action"), reader.policy_actions)
            np.testing.assert_array_equal(column("source"), reader.sources)
            np.testing.assert_array_equal(column("timestamp_ns"), reader.timestamps_ns)
            np.testing.assert_allclose(column("timestamp"), np.arange(entry.length) / 10, atol=1e-9)
            for camera in entry.info.cameras:
                times = reader.camera_timestamps_ns(camera)
                np.testing.assert_array_equal(column(f"camera_timestamp_ns_{camera}"), times)
                np.testing.assert_array_equal(column(camera), images_of(entry, camera))


def test_what_is_known_of_the_episodes_is_there(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    out = write_diffusion_policy(episodes, tmp_path / "out.zarr", outcomes=OUTCOMES)
    attributes = json.loads((out / ".zattrs").read_text())
    for entry, facts in zip(episodes, attributes["episodes"], strict=True):
        assert facts.pop("outcome", None) == OUTCOMES.get(entry.id)
        assert facts.pop("fingerprint") == entry.fingerprint
        for name in ("cameras", "missing"):
            facts[name] = tuple(facts[name])
        assert EpisodeInfo(**facts) == entry.info
    (statistics,) = [ActionStatistics.from_json(json.dumps(s)) for s in attributes["action_statistics"]]
    assert (statistics.count, statistics.robot) == (75, "simulated_gen3")
    assert attributes["action_space"] == "twist"


def test_its_reader_can_open_it(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    """Its reader takes Zarr 2, opens every array of both groups, and wants N rows in each of the data."""
    out = write_diffusion_policy(episodes, tmp_path / "out.zarr")
    assert not list(out.rglob("zarr.json"))
    assert json.loads((out / ".zgroup").read_text()) == {"zarr_format": 2}
    assert {p.name for p in out.iterdir()} == {".zgroup", ".zattrs", "data", "meta"}
    for group in ("data", "meta"):
        for array in (p for p in (out / group).iterdir() if p.is_dir()):
            header = json.loads((array / ".zarray").read_text())
            assert header["zarr_format"] == 2 and header["filters"] is None
            assert header["shape"][0] == (75 if group == "data" else 3)
            assert header["compressor"] is None or header["compressor"]["id"] == "blosc"
            assert header.get("dimension_separator", ".") == "."


def test_chunks_are_of_two_megabytes_and_only_in_time(tmp_path: Path) -> None:
    entry = record(tmp_path, "e0", 130)
    out = write_diffusion_policy([entry], tmp_path / "out.zarr", image_size=160)
    root = zarr.open_group(out, mode="r")
    images, actions = root["data/table"], root["data/action"]
    assert isinstance(images, zarr.Array) and isinstance(actions, zarr.Array)
    assert images.chunks == (27, 160, 160, 3)
    assert actions.chunks == (130, 7)
    assert len(list((out / "data" / "table").glob("*.0.0.0"))) == 5
    whole = np.asarray(images[:])
    for start in (0, 26, 27, 107, 108, 129):
        assert whole[start].any()


def test_the_second_time_nothing_is_done(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    write_diffusion_policy(episodes, out, outcomes=OUTCOMES)
    before, touched = contents(out), out.stat().st_mtime_ns
    write_diffusion_policy(episodes, out, outcomes=OUTCOMES)
    assert out.stat().st_mtime_ns == touched
    with pytest.raises(InputError, match="holds an export of other episodes, labels or options: exports"):
        write_diffusion_policy(episodes, out, outcomes=OUTCOMES, action_space=ActionSpace.ABSOLUTE_POSE)
    with pytest.raises(InputError, match=rf"options \({len(episodes)} episodes then, 1 now\): exports are "):
        write_diffusion_policy(episodes[:1], out, outcomes=OUTCOMES)
    assert contents(out) == before
    again = write_diffusion_policy(episodes, tmp_path / "again.zarr", outcomes=OUTCOMES)
    assert contents(again) == before


def test_what_does_not_fit_is_refused(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    lacking = record(tmp_path, "lacking", 3, missing=("tool_pose",))
    named = record(tmp_path, "named", 3, cameras=("action",))
    out = tmp_path / "exports" / "out.zarr"
    with pytest.raises(InputError, match="without tool_pose"):
        write_diffusion_policy([lacking], out, action_space=ActionSpace.ABSOLUTE_POSE)
    with pytest.raises(InputError, match="camera must not be called 'action'"):
        write_diffusion_policy([named], out)
    assert not out.exists()


def _killed(episodes: list[EpisodeEntry], out: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done > total // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    write_diffusion_policy(episodes, out, progress=kill)


def test_a_killed_export_leaves_nothing_half_built(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    # Not forked: Zarr's own thread would not be there in the child.
    child = multiprocessing.get_context("spawn").Process(target=_killed, args=(episodes, out))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert not out.exists()
    write_diffusion_policy(episodes, out)
    assert names_in(tmp_path) == ["out.zarr"]


def _peak_bytes(entry: EpisodeEntry, out: Path) -> int:
    tracemalloc.start()
    try:
        write_diffusion_policy([entry], out, image_size=96)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    short, long = (record(tmp_path, name, length) for name, length in (("short", 150), ("long", 600)))
    _peak_bytes(short, tmp_path / "warm.zarr")
    growth = _peak_bytes(long, tmp_path / "b.zarr") - _peak_bytes(short, tmp_path / "a.zarr")
    assert growth < 0.25 * 450 * 2 * 96 * 96 * 3
