"""Conditioned datasets: what LeRobot reads back is what was recorded, scored and prompted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.episode import ACTION_NAMES, POLICY_STATE_FIELDS, POLICY_STATE_NAMES, Source, policy_state
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.lerobot_dataset import export_conditioned
from pipeline.prompts import NEGATIVE, NONE, POSITIVE, parse_prompt
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker

lerobot_datasets = pytest.importorskip("lerobot.datasets")

SOURCES = (Source.POLICY, Source.INTERVENTION, Source.TELEOP) * 3
CODES = np.array([POSITIVE, NEGATIVE, NONE], dtype=np.int8)
RED, BLUE = "pick up the red cube", "pick up the blue cube"

Export = Callable[..., Path]


def indicators_of(entries: list[EpisodeEntry]) -> dict[str, np.ndarray]:
    return {e.id: np.resize(CODES, e.length) for e in entries}


def columns_of(entries: list[EpisodeEntry]) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return {
        name: {e.id: rng.normal(size=e.length).astype(np.float32) for e in entries}
        for name in ("value", "advantage", "return")
    }


def export(entries: list[EpisodeEntry], out: Path, **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "indicators": indicators_of(entries),
        "indicator_dropout": 0.0,
        "seed": 1,
        "extra_columns": columns_of(entries),
    }
    return export_conditioned(entries, out=out, **{**arguments, **changes})


def open_dataset(root: Path, **options: Any) -> Any:
    return lerobot_datasets.LeRobotDataset("lab/any-name", root=root, video_backend="pyav", **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[EpisodeEntry]:
    """Three short episodes of two tasks and all sources."""
    workspace = Workspace(tmp_path_factory.mktemp("lab"))
    workspace.create()
    make_episode = EpisodeMaker(workspace)
    return [
        make_episode(RED, SOURCES),
        make_episode(BLUE, SOURCES[:4]),
        make_episode(RED, SOURCES[:1]),
    ]


@pytest.fixture(scope="module")
def built(entries: list[EpisodeEntry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of these episodes, for tests that only read it."""
    return export(entries, tmp_path_factory.mktemp("datasets") / "built")


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
            state = policy_state({name: reader.state(name) for name in POLICY_STATE_FIELDS})
            for frame in range(entry.length):
                item = dataset[row]
                assert (item["episode_index"], item["frame_index"], item["index"]) == (number, frame, row)
                assert float(item["timestamp"]) == pytest.approx(frame / 10)
                assert (item["observation.state"].numpy() == state[frame]).all()
                assert (item["action"].numpy() == reader.actions[frame]).all()
                assert item["source"] == reader.sources[frame]
                assert bool(item["intervention"]) == (reader.sources[frame] == Source.INTERVENTION)
                for name, values in columns.items():
                    assert float(item[name]) == values[entry.id][frame]
                for camera in ("table", "wrist"):
                    seen = item[f"observation.images.{camera}"].numpy().transpose(1, 2, 0) * 255
                    error = np.abs(seen - reader.image(camera, frame)).mean()
                    assert error < 4, f"{camera} {frame}: H.264 changed the picture by {error} levels"
                row += 1


def test_each_frame_has_its_own_prompt(entries: list[EpisodeEntry], built: Path) -> None:
    dataset = open_dataset(built)
    found = [parse_prompt(dataset[i]["task"]) for i in range(len(dataset))]
    words = {POSITIVE: "positive", NEGATIVE: "negative", NONE: None}
    wanted = [(e.info.task, words[int(code)]) for e in entries for code in indicators_of(entries)[e.id]]
    assert found == wanted
    assert list(dataset.meta.tasks.index) == sorted(
        f"{task}{suffix}"
        for task in (RED, BLUE)
        for suffix in ("", ". Advantage: positive", ". Advantage: negative")
    )


def test_dropout_depends_on_the_seed_and_the_episode_alone(
    make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    entries = [make_episode(RED, (Source.POLICY,) * 40) for _ in range(2)]
    positive = {e.id: np.full(40, POSITIVE, dtype=np.int8) for e in entries}

    def bare(out: str, chosen: list[EpisodeEntry], seed: int) -> list[bool]:
        root = export(chosen, tmp_path / out, indicators=positive, indicator_dropout=0.3, seed=seed)
        dataset = open_dataset(root)
        tasks = dataset.meta.tasks.index
        numbers = dataset.hf_dataset.data.column("task_index").to_pylist()
        return [parse_prompt(tasks[number])[1] is None for number in numbers]

    both = bare("both", entries, 1)
    assert 0.1 < np.mean(both) < 0.5
    assert both[:40] != both[40:]
    assert bare("second", entries[1:], 1) == both[40:]
    assert bare("seed", entries[1:], 2) != both[40:]


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
    assert set(ours.meta.episodes.column_names) == set(theirs.meta.episodes.column_names)
    assert ours.meta.episodes.features == theirs.meta.episodes.features
    assert ours.meta.stats.keys() == theirs.meta.stats.keys()
    for key, stats in theirs.meta.stats.items():
        assert {n: v.shape for n, v in ours.meta.stats[key].items()} == {n: v.shape for n, v in stats.items()}
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


def test_equal_arguments_give_equal_bytes(entries: list[EpisodeEntry], built: Path, tmp_path: Path) -> None:
    first, second = contents(built), contents(export(entries, tmp_path / "second"))
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_building_again_does_nothing_and_other_content_is_refused(
    entries: list[EpisodeEntry], tmp_path: Path
) -> None:
    out = export(entries, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    time.sleep(0.01)
    assert export(entries, out) == out
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    with pytest.raises(InputError, match="holds something else"):
        export(entries, out, seed=2)
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
    second = export(entries, tmp_path / "second", video_store=store, seed=2)
    assert {p: p.stat().st_mtime_ns for p in encoded} == encoded
    name = "videos/observation.images.table/chunk-000/file-001.mp4"
    assert (first / name).samefile(second / name)
    without = export(entries, tmp_path / "without", seed=2)
    assert contents(without) == contents(second)


def test_a_killed_build_leaves_nothing_and_the_next_one_cleans_up(
    make_episode: EpisodeMaker, tmp_path: Path
) -> None:
    entries = [make_episode(RED, (Source.POLICY,) * 10) for _ in range(12)]
    script = """
        import sys
        from pathlib import Path
        from pipeline.workspace import Workspace
        from tests.pipeline.test_lerobot_dataset import export
        def progress(done, total):
            if done == 3:
                print("building", flush=True)
        export(Workspace(Path(sys.argv[1])).list_episodes(), Path(sys.argv[2]), progress=progress)
    """
    out = tmp_path / "datasets" / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(make_episode.workspace.root), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None and b"building" in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert len(names(out.parent)) == 1  # the leftover
    export(entries, out)
    assert names(out.parent) == ["out"]
    assert len(open_dataset(out)) == 120


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
    assert "out" not in names(tmp_path) and not [n for n in names(tmp_path) if n.startswith(".out")]


def test_missing_or_broken_scores_are_refused(entries: list[EpisodeEntry], tmp_path: Path) -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=message):
            export(entries, tmp_path / "out", **changes)

    good = indicators_of(entries)
    first = entries[0].id
    refused("one indicator for each of its 9 frames", indicators={**good, first: good[first][:-1]})
    refused("one indicator", indicators={k: v for k, v in good.items() if k != first})
    refused("int8", indicators={**good, first: good[first].astype(np.int64)})
    values = columns_of(entries)["value"]
    for broken in (values[first][:-1], np.full(9, np.nan, dtype=np.float32)):
        refused("one finite 'value'", extra_columns={"value": {**values, first: broken}})
    refused("one finite 'value'", extra_columns={"value": {}})
    refused("dropout", indicator_dropout=1.5)
    missing = [replace(entries[0], path=tmp_path / "gone.h5")]
    with pytest.raises(InputError, match="no episode file"):
        export(missing, tmp_path / "out")
