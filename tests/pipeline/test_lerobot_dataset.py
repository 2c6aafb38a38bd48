"""Exported datasets: what LeRobot reads back is what was recorded and labelled."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.dataset_folder import read_episode_facts
from pipeline.episode import (
    ACTION_NAMES,
    POLICY_STATE_FIELDS,
    POLICY_STATE_NAMES,
    Outcome,
    Source,
    policy_state,
)
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names, to_space
from tests.pipeline.datasets import (
    BLUE,
    RED,
    SOURCES,
    columns_of,
    contents,
    export,
    names,
    open_dataset,
    outcomes_of,
    three_episodes,
)
from tests.tiny_episodes import EpisodeMaker

lerobot_datasets = pytest.importorskip("lerobot.datasets")


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[EpisodeEntry]:
    return three_episodes(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def built(entries: list[EpisodeEntry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of these episodes, for tests that only read it."""
    out = tmp_path_factory.mktemp("datasets") / "built"
    return export(entries, out, extra_columns=columns_of(entries))


def test_lerobot_reads_back_what_was_recorded(
    entries: list[EpisodeEntry], built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    columns = columns_of(entries)
    dataset = open_dataset(built)
    assert (dataset.num_episodes, len(dataset), dataset.fps) == (3, 14, 10)
    assert dataset.features["observation.state"]["names"] == list(POLICY_STATE_NAMES)
    assert dataset.features["action"]["names"] == list(ACTION_NAMES)
    row = 0
    for number, entry in enumerate(entries):
        with EpisodeReader(entry.path) as reader:
            recorded = {
                "observation.state": policy_state({name: reader.state(name) for name in POLICY_STATE_FIELDS}),
                "action": reader.actions,
                "joint_velocities": reader.state("joint_velocities"),
                "tool_wrench": reader.state("tool_wrench"),
                "policy_action": reader.policy_actions,
                "source": reader.sources,
                "intervention": reader.sources == Source.INTERVENTION,
                "next.done": np.arange(entry.length) == entry.length - 1,
                "next.success": (np.arange(entry.length) == entry.length - 1) & (number != 1),
                "timestamp_ns": reader.timestamps_ns,
                "camera_timestamp_ns.wrist": reader.camera_timestamps_ns("wrist"),
                **{name: values[entry.id] for name, values in columns.items()},
            }
            for frame in range(entry.length):
                item = dataset[row]
                assert (item["episode_index"], item["frame_index"], item["index"]) == (number, frame, row)
                assert float(item["timestamp"]) == pytest.approx(frame / 10)
                assert item["task"] == entry.info.task
                for name, values in recorded.items():
                    np.testing.assert_array_equal(item[name].numpy(), values[frame], err_msg=name)
                for camera in ("table", "wrist"):
                    seen = item[f"observation.images.{camera}"].numpy().transpose(1, 2, 0) * 255
                    error = np.abs(seen - reader.image(camera, frame)).mean()
                    assert error < 4, f"{camera} {frame}: H.264 changed the picture by {error} levels"
                row += 1


def test_nothing_that_is_known_of_an_episode_is_lost(entries: list[EpisodeEntry], built: Path) -> None:
    facts = read_episode_facts(built)
    assert facts["extra"] == ['{"seed": 3}', "{}", "{}"]
    assert facts["outcome"] == [Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS]
    assert facts["fingerprint"] == [entry.fingerprint for entry in entries]
    for name in set(asdict(entries[0].info)) - {"extra"}:
        wanted = [getattr(entry.info, name) for entry in entries]
        assert facts[name] == [list(value) if isinstance(value, tuple) else value for value in wanted], name


def test_unlabelled_is_not_failed(entries: list[EpisodeEntry], tmp_path: Path) -> None:
    labels = {**outcomes_of(entries), entries[1].id: None}
    root = export(entries, tmp_path / "out", outcomes=labels)
    assert "next.success" not in open_dataset(root).features
    assert read_episode_facts(root)["outcome"] == [Outcome.SUCCESS, None, Outcome.SUCCESS]


@pytest.mark.parametrize("space", [ActionSpace.ABSOLUTE_POSE, ActionSpace.JOINT_POSITIONS])
def test_actions_come_in_the_space_that_was_asked_for(
    entries: list[EpisodeEntry], tmp_path: Path, space: ActionSpace
) -> None:
    dataset = open_dataset(export(entries[:1], tmp_path / "out", action_space=space))
    assert dataset.features["action"]["names"] == list(action_names(space))
    with EpisodeReader(entries[0].path) as reader:
        states = (reader.state("tool_pose"), reader.state("joint_positions"))
        wanted = to_space(space, reader.actions, *states, 10.0)
        for frame in (0, 4, 8):
            np.testing.assert_array_equal(dataset[frame]["action"].numpy(), wanted[frame])
            np.testing.assert_array_equal(dataset[frame]["recorded_action"].numpy(), reader.actions[frame])


def test_statistics_are_those_of_the_data(entries: list[EpisodeEntry], built: Path) -> None:
    stats = open_dataset(built).meta.stats
    actions, images = [], []
    for entry in entries:
        with EpisodeReader(entry.path) as reader:
            actions.append(reader.actions)
            images.append(reader.images("wrist") / 255.0)
    action, image = np.concatenate(actions), np.concatenate(images)
    for name, expected in [("mean", action.mean(0)), ("std", action.std(0)), ("max", action.max(0))]:
        np.testing.assert_allclose(stats["action"][name], expected, atol=1e-5)
    pixel = stats["observation.images.wrist"]
    assert pixel["mean"].shape == (3, 1, 1) and pixel["count"] == [14]
    for name, expected in [
        ("mean", image.mean((0, 1, 2))),
        ("std", image.std((0, 1, 2))),
        ("min", image.min((0, 1, 2))),
        ("max", image.max((0, 1, 2))),
    ]:
        np.testing.assert_allclose(pixel[name].ravel(), expected, atol=1e-6)
    for name, found in stats.items():
        assert all(np.isfinite(values).all() for values in found.values()), name


def test_it_has_the_form_of_a_dataset_that_lerobot_recorded(built: Path, tmp_path: Path) -> None:
    ours = open_dataset(built)
    own_features = {
        key: feature
        for key, feature in ours.features.items()
        if key not in {"timestamp", "frame_index", "episode_index", "index", "task_index"}
    }
    recorder = lerobot_datasets.LeRobotDataset.create(
        "lab/recorded",
        10,
        {key: {k: v for k, v in f.items() if k != "info"} for key, f in own_features.items()},
        root=tmp_path / "theirs",
        robot_type="simulated_gen3",
    )
    frame: dict[str, Any] = {"task": ours[0]["task"]}
    for key, feature in own_features.items():
        value = ours[0][key].numpy()
        video = feature["dtype"] == "video"
        frame[key] = (
            (value.transpose(1, 2, 0) * 255).astype(np.uint8) if video else value.reshape(feature["shape"])
        )
    for _ in range(3):
        recorder.add_frame(dict(frame))
    recorder.save_episode(parallel_encoding=False)
    recorder.finalize()
    theirs = open_dataset(tmp_path / "theirs")
    assert ours.hf_dataset.features == theirs.hf_dataset.features
    assert ours.meta.episodes.features == theirs.meta.episodes.features
    kept = {"joint_velocities", "tool_wrench", "policy_action", "timestamp_ns"}
    kept |= {"camera_timestamp_ns.table", "camera_timestamp_ns.wrist"}
    assert ours.meta.stats.keys() == theirs.meta.stats.keys() - kept
    for key in ours.meta.stats:
        shapes = {n: v.shape for n, v in theirs.meta.stats[key].items()}
        assert {n: v.shape for n, v in ours.meta.stats[key].items()} == shapes, key
    ours_item, theirs_item = ours[0], theirs[0]
    assert ours_item.keys() == theirs_item.keys()
    for key, value in theirs_item.items():
        if key != "task":
            assert (ours_item[key].dtype, ours_item[key].shape) == (value.dtype, value.shape), key


def test_chunks_of_actions_load_as_a_trainer_asks_for_them(built: Path) -> None:
    dataset = open_dataset(built, delta_timestamps={"action": [0.0, 0.1, 0.2]})
    item = dataset[8]  # the last frame of the first episode
    assert item["action"].shape == (3, 7)
    assert item["action_is_pad"].tolist() == [False, True, True]


def test_equal_arguments_give_equal_bytes_however_many_work(
    entries: list[EpisodeEntry], built: Path, tmp_path: Path
) -> None:
    second = export(entries, tmp_path / "second", extra_columns=columns_of(entries), workers=1)
    assert contents(built) == contents(second)


def test_building_again_does_nothing_and_other_content_is_refused(
    entries: list[EpisodeEntry], tmp_path: Path
) -> None:
    out = export(entries, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    time.sleep(0.01)
    assert export(entries, out) == out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    for changes in (
        {"outcomes": None},
        {"action_space": ActionSpace.DELTA_POSE},
        {"extra_columns": columns_of(entries)},
    ):
        with pytest.raises(InputError, match="holds an export of other episodes, labels or options: exports"):
            export(entries, out, **changes)
    with pytest.raises(InputError, match=rf"options \({len(entries)} episodes then, 1 now\): exports are "):
        export(entries[:1], out)
    (out / "meta" / "recap_episodes.parquet").unlink()
    with pytest.raises(InputError, match="holds an export of other episodes, labels or options: exports"):
        export(entries[:1], out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")
    with pytest.raises(InputError, match="holds something else"):
        export(entries, tmp_path / "mine")


def test_datasets_of_the_same_episodes_share_their_videos(
    entries: list[EpisodeEntry], tmp_path: Path
) -> None:
    store = tmp_path / "videos"
    first = export(entries[:2], tmp_path / "first", video_store=store)
    encoded = {p: p.stat().st_mtime_ns for p in store.rglob("*.mp4")}
    second = export(entries, tmp_path / "second", video_store=store)
    assert {p: p.stat().st_mtime_ns for p in encoded} == encoded
    name = "videos/observation.images.table/chunk-000/file-001.mp4"
    assert (first / name).samefile(second / name)
    without = export(entries, tmp_path / "without")
    assert contents(without) == contents(second)


def test_progress_counts_the_episodes(entries: list[EpisodeEntry], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    export(entries, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_episodes_that_do_not_fit_together_are_refused(make_episode: EpisodeMaker, tmp_path: Path) -> None:
    plain = make_episode(RED, SOURCES)
    for other, message in [
        (make_episode(RED, SOURCES, cameras=("wrist",)), "cameras"),
        (make_episode(RED, SOURCES, rate_hz=20.0), "20.0 Hz"),
        (make_episode(RED, SOURCES, size=(24, 24)), "24×24 pixels"),
        (make_episode(RED, SOURCES, missing=("tool_pose",)), "without tool_pose"),
        (plain, "twice"),
    ]:
        with pytest.raises(InputError, match=message):
            export([plain, other], tmp_path / "out")
    for alone, message in [
        (make_episode(RED, SOURCES, rate_hz=12.5), "whole number"),
        (make_episode(RED, SOURCES, size=(25, 24)), "even numbers"),
    ]:
        with pytest.raises(InputError, match=message):
            export([alone], tmp_path / "out")
    with pytest.raises(InputError, match="one episode or more"):
        export([], tmp_path / "out")
    with pytest.raises(InputError, match="outcome 'good'"):
        export([plain], tmp_path / "out", outcomes={plain.id: "good"})
    assert "out" not in names(tmp_path) and not [n for n in names(tmp_path) if n.startswith(".out")]


def test_a_damaged_episode_is_named(make_episode: EpisodeMaker, tmp_path: Path) -> None:
    plain, hurt = make_episode(BLUE, SOURCES), make_episode(RED, SOURCES)
    stored = bytearray(hurt.path.read_bytes())
    place = stored.rindex(b"\xff\xd9") - 20  # in the middle of a JPEG
    stored[place] ^= 0x10
    hurt.path.write_bytes(stored)
    with pytest.raises(InputError, match=hurt.id):
        export([plain, hurt], tmp_path / "out")
    with pytest.raises(InputError, match="no episode file"):
        export([replace(plain, path=tmp_path / "gone.h5")], tmp_path / "out")
    assert "out" not in names(tmp_path)


def test_broken_columns_are_refused(entries: list[EpisodeEntry], tmp_path: Path) -> None:
    values = columns_of(entries)["value"]
    first = entries[0].id
    for broken in (
        {**values, first: values[first][:-1]},
        {**values, first: np.full(9, np.nan, dtype=np.float32)},
        {},
    ):
        with pytest.raises(InputError, match="one finite 'value'"):
            export(entries, tmp_path / "out", extra_columns={"value": broken})
    for name, message in (("source", "already"), ("task_index", "already"), ("a/b", "without '/'")):
        with pytest.raises(InputError, match=message):
            export(entries, tmp_path / "out", extra_columns={name: values})
    assert names(tmp_path) == []
