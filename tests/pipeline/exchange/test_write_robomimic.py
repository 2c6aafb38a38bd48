"""robomimic files: what its reader expects is there, nothing is lost, a killed export leaves nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.action_statistics import statistics_from_json
from pipeline.episode_attributes import read_info
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names, to_space
from pipeline.exchange.write_robomimic import Compression, split, write_robomimic
from tests.pipeline.exchange.exported import images_of, names_in, record

OUTCOMES = {"first": "success", "second": "failure"}


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> list[EpisodeEntry]:
    """A success, a failure of one frame, an unlabelled one of another robot with foreign columns."""
    folder = tmp_path_factory.mktemp("recorded")
    return [
        record(folder, "first", 40, operator_mark="success", extra={"seed": 4}),
        record(folder, "second", 1, seed=1, policy_checkpoint="p", truncated=True),
        record(folder, "third", 34, seed=2, robot="other", foreign={"a/b": np.arange(34)}),
    ]


@pytest.mark.parametrize("space", ActionSpace)
def test_actions_are_scaled_and_kept(
    episodes: list[EpisodeEntry], space: ActionSpace, tmp_path: Path
) -> None:
    out = write_robomimic(episodes, tmp_path / "out.hdf5", outcomes=OUTCOMES, action_space=space)
    with h5py.File(out) as file:
        data = file["data"]
        assert data.attrs["total"] == 75
        environment = json.loads(data.attrs["env_args"])
        assert environment == {"env_name": "other", "type": 2, "env_kwargs": {"control_freq": 10.0}}
        assert tuple(data.attrs["action_names"]) == action_names(space)
        assert data.attrs["action_space"] == space
        statistics = {s.robot: s for s in statistics_from_json(data.attrs["action_statistics"])}
        assert {robot: s.count for robot, s in statistics.items()} == {"other": 34, "simulated_gen3": 41}
        for i, entry in enumerate(episodes):
            demo = data[f"demo_{i}"]
            with EpisodeReader(entry.path) as reader:
                pose, joints = reader.state("tool_pose"), reader.state("joint_positions")
                expected = to_space(space, reader.actions, pose, joints, entry.info.rate_hz)
            np.testing.assert_array_equal(demo["actions_unscaled"], expected)
            scaled = demo["actions"][:]
            assert scaled.dtype == np.float32 and np.abs(scaled).max() <= 1
            np.testing.assert_array_equal(scaled, statistics[entry.info.robot].normalise(expected))
            np.testing.assert_allclose(scaled[:, -1], 2 * expected[:, -1] - 1, atol=1e-6)


def test_all_of_an_episode_is_there(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    out = write_robomimic(episodes, tmp_path / "out.hdf5", outcomes=OUTCOMES)
    with h5py.File(out) as file:
        for i, entry in enumerate(episodes):
            demo = file[f"data/demo_{i}"]
            assert read_info(demo, out) == entry.info
            assert demo.attrs["num_samples"] == entry.length
            assert json.loads(demo.attrs["ep_meta"]) == {"lang": entry.info.task}
            assert demo.attrs["fingerprint"] == entry.fingerprint
            assert demo.attrs.get("outcome") == OUTCOMES.get(entry.id)
            with EpisodeReader(entry.path) as reader:
                pose = reader.state("tool_pose")
                np.testing.assert_array_equal(demo["obs/robot0_eef_pos"], pose[:, :3])
                np.testing.assert_array_equal(demo["obs/robot0_eef_quat"], np.roll(pose[:, 3:], -1, axis=1))
                wrench = np.concatenate([demo["obs/robot0_ee_force"], demo["obs/robot0_ee_torque"]], axis=1)
                np.testing.assert_array_equal(wrench, reader.state("tool_wrench"))
                for name, field in (
                    ("joint_pos", "joint_positions"),
                    ("joint_vel", "joint_velocities"),
                    ("gripper_qpos", "gripper_position"),
                ):
                    np.testing.assert_array_equal(demo[f"obs/robot0_{name}"], reader.state(field))
                np.testing.assert_array_equal(demo["recap/action"], reader.actions)
                np.testing.assert_array_equal(demo["recap/policy_action"], reader.policy_actions)
                np.testing.assert_array_equal(demo["recap/source"], reader.sources)
                np.testing.assert_array_equal(demo["recap/timestamp_ns"], reader.timestamps_ns)
                for camera in entry.info.cameras:
                    times = demo[f"recap/camera_timestamp_ns/{camera}"]
                    np.testing.assert_array_equal(times, reader.camera_timestamps_ns(camera))
            for camera in entry.info.cameras:
                np.testing.assert_array_equal(demo[f"obs/{camera}_image"], images_of(entry, camera))
        np.testing.assert_array_equal(file["data/demo_2/recap/foreign/a/b"], np.arange(34))


def test_next_observations_are_one_frame_later(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    plain = write_robomimic(episodes, tmp_path / "plain.hdf5")
    packed = write_robomimic(episodes, tmp_path / "packed.hdf5", compression=Compression.LZF)
    for path in (plain, packed):
        # As robomimic opens it.
        with h5py.File(path, "r", swmr=True, libver="latest") as file:
            for demo in file["data"].values():
                assert set(demo["obs"]) == set(demo["next_obs"])
                for name, values in demo["obs"].items():
                    later = demo[f"next_obs/{name}"][:]
                    np.testing.assert_array_equal(later, np.concatenate([values[1:], values[-1:]]))
    with h5py.File(packed) as file:
        assert file["data/demo_0/obs/table_image"].compression == "lzf"
        assert file["data/demo_0/next_obs/table_image"].is_virtual


def test_rewards_only_at_the_end_of_a_success(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    out = write_robomimic(episodes, tmp_path / "out.hdf5", outcomes=OUTCOMES)
    with h5py.File(out) as file:
        for name, last in (("demo_0", 1), ("demo_1", 0), ("demo_2", 0)):
            for column in ("rewards", "dones"):
                values = file[f"data/{name}/{column}"][:]
                assert values[-1] == last and not values[:-1].any()
        assert list(file["mask/success"]) == [b"demo_0"]
        assert list(file["mask/failure"]) == [b"demo_1"]
        sides = [set(file["mask/train"]), set(file["mask/valid"])]
        assert sides[0] | sides[1] == {b"demo_0", b"demo_1", b"demo_2"} and not sides[0] & sides[1]
        assert all(sides)


@given(st.sets(st.text("abc019", min_size=1, max_size=6), min_size=1, max_size=60))
@settings(max_examples=50)
def test_the_split_is_by_id_alone(ids: set[str]) -> None:
    names = sorted(ids)
    train, valid = split(names)
    assert sorted(train + valid) == list(range(len(names)))
    assert train and (valid or len(names) == 1)
    backwards = split(names[::-1])
    assert {names[i] for i in valid} == {names[::-1][i] for i in backwards[1]}


def test_a_tenth_is_for_validation_and_stays_there() -> None:
    names = [f"episode-{i:05d}" for i in range(5000)]
    _, valid = split(names)
    assert 400 < len(valid) < 600
    chosen = {names[i] for i in valid}
    fewer = names[:2500]
    assert {fewer[i] for i in split(fewer)[1]} == chosen & set(fewer)


def test_images_are_resized(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    out = write_robomimic(episodes, tmp_path / "out.hdf5", image_size=12)
    with h5py.File(out) as file:
        small = file["data/demo_0/obs/table_image"][:].astype(float)
    assert small.shape == (40, 12, 12, 3)
    large = images_of(episodes[0], "table").astype(float)
    averaged = large.reshape(40, 12, 2, 12, 2, 3).mean((2, 4))
    np.testing.assert_allclose(small, averaged, atol=1)


def test_the_second_time_nothing_is_done(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    out = tmp_path / "out.hdf5"
    write_robomimic(episodes, out, outcomes=OUTCOMES)
    before = out.stat().st_mtime_ns, out.stat().st_ino
    assert write_robomimic(episodes, out, outcomes=OUTCOMES) == out
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == before
    changes: list[dict[str, Any]] = [
        {"outcomes": {}},
        {"action_space": ActionSpace.DELTA_POSE},
        {"image_size": 8},
    ]
    for change in changes:
        with pytest.raises(InputError, match="holds an export of other episodes, labels or options: exports"):
            write_robomimic(episodes, out, **{"outcomes": OUTCOMES, **change})
    with pytest.raises(InputError, match=rf"options \({len(episodes)} episodes then, 2 now\): exports are "):
        write_robomimic(episodes[:2], out, outcomes=OUTCOMES)
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == before
    (tmp_path / "text").write_text("mine")
    (tmp_path / "folder").mkdir()
    for other in (tmp_path / "text", tmp_path / "folder"):
        with pytest.raises(InputError, match="holds something else"):
            write_robomimic(episodes, other)


def test_episodes_that_do_not_fit_are_refused(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    one_camera = record(tmp_path, "one-camera", 2, cameras=("table",))
    faster = record(tmp_path, "faster", 2, rate_hz=20.0)
    lacking = record(tmp_path, "lacking", 3, missing=("action", "tool_wrench"))
    out = tmp_path / "exports" / "out.hdf5"
    for others, message in (
        ([], "one episode or more"),
        ([episodes[0]], "twice"),
        ([one_camera], "cameras"),
        ([faster], "20.0 Hz"),
        ([lacking], "without action"),
    ):
        chosen = [*episodes, *others] if others else []
        with pytest.raises(InputError, match=message):
            write_robomimic(chosen, out)
    with pytest.raises(InputError, match="outcome 'maybe'"):
        write_robomimic(episodes, out, outcomes={"first": "maybe"})
    assert not out.parent.exists()


def test_what_an_episode_lacks_has_no_observation(tmp_path: Path) -> None:
    lacking = record(tmp_path, "lacking", 3, missing=("joint_velocities", "tool_wrench"))
    out = write_robomimic([lacking], tmp_path / "out.hdf5")
    with h5py.File(out) as file:
        names = set(file["data/demo_0/obs"])
        assert names == {
            *("robot0_eef_pos", "robot0_eef_quat", "robot0_joint_pos", "robot0_gripper_qpos"),
            *("table_image", "wrist_image"),
        }


def test_a_damaged_image_leaves_nothing(tmp_path: Path) -> None:
    entry = record(tmp_path, "damaged", 5)
    with h5py.File(entry.path, "r+") as file:
        file["observation/images/wrist"][3] = np.frombuffer(b"no image", np.uint8)
    with pytest.raises(InputError, match=r"wrist.*frame 3 is damaged"):
        write_robomimic([entry], tmp_path / "out.hdf5")
    assert names_in(tmp_path) == ["damaged.h5"]


def _killed(episodes: list[EpisodeEntry], out: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done > total // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    write_robomimic(episodes, out, progress=kill)


def test_a_killed_export_leaves_nothing_half_built(episodes: list[EpisodeEntry], tmp_path: Path) -> None:
    out = tmp_path / "out.hdf5"
    child = multiprocessing.get_context("spawn").Process(target=_killed, args=(episodes, out))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert not out.exists()
    assert all(name.startswith(".") for name in names_in(tmp_path))
    write_robomimic(episodes, out)
    assert names_in(tmp_path) == ["out.hdf5"]


def _peak_bytes(entry: EpisodeEntry, out: Path) -> int:
    tracemalloc.start()
    try:
        write_robomimic([entry], out)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    short, long = (record(tmp_path, name, length) for name, length in (("short", 100), ("long", 600)))
    _peak_bytes(short, tmp_path / "warm.hdf5")
    growth = _peak_bytes(long, tmp_path / "b.hdf5") - _peak_bytes(short, tmp_path / "a.hdf5")
    assert growth < 0.5 * 500 * 2 * 24 * 24 * 3
