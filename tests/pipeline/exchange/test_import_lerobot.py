"""Import of LeRobot datasets: v2.1 written here, v3 written by LeRobot itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.episode import Source
from pipeline.episode_file import EpisodeReader
from pipeline.exchange.mapping_file import parse_mapping
from pipeline.workspace import Workspace
from tests.pipeline.exchange.foreign_samples import LENGTH, Columns, images, joints
from tests.pipeline.exchange.imports import (
    VIDEO_TOLERANCE,
    assert_close,
    assert_pictures,
    bring,
    only,
    reader_of,
    snapshot,
)
from tests.pipeline.exchange.lerobot_samples import number_feature, video_feature, write_lerobot_v21

TOP = "observation.images.top"
ARM = [f"joint{i}" for i in range(1, 8)]
FEATURES = {
    "observation.state": number_feature(8, [*ARM, "gripper"]),
    "action": number_feature(7),
    TOP: video_feature(),
}
MAPPING = parse_mapping(
    {
        "joint_positions": {"column": "observation.state", "components": ARM, "unit": "deg"},
        "gripper_position": {
            "column": "observation.state",
            "components": ["gripper"],
            "open": 100,
            "closed": 0,
        },
        "action": {
            "space": "delta_pose",
            "translation": {"column": "action", "indices": [0, 1, 2], "unit": "mm"},
            "rotation": {
                "column": "action",
                "indices": [3, 4, 5],
                "unit": "deg",
                "convention": "rotation_vector",
            },
            "gripper": {"column": "action", "indices": [6], "open": 100, "closed": 0},
        },
        "cameras": {"table": TOP},
    }
)
OPTIONS: dict[str, Any] = {"mapping": MAPPING, "robot": "kinova_gen3"}


def numbers(seed: int = 0, length: int = LENGTH) -> Columns:
    """State in degrees and percent, action in mm, degrees and percent, float32."""
    rng = np.random.default_rng(seed)
    state = np.column_stack([np.rad2deg(joints(length, seed)), rng.uniform(0, 100, length)])
    action = np.column_stack([rng.uniform(-5, 5, (length, 6)), rng.uniform(0, 100, length)])
    return {"observation.state": state.astype(np.float32), "action": action.astype(np.float32)}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "lab")


def check_numbers(episode: EpisodeReader, columns: Columns, shown: np.ndarray) -> None:
    """What the mapping above must give."""
    state, action = columns["observation.state"], columns["action"]
    assert_close(episode.state("joint_positions"), np.deg2rad(state[:, :7]))
    assert_close(episode.state("gripper_position")[:, 0], 1 - state[:, 7] / 100)
    assert_close(episode.actions[:, :3], action[:, :3] / 1000 * 10)
    assert_close(episode.actions[:, 3:6], np.deg2rad(action[:, 3:6]) * 10)
    assert_close(episode.actions[:, 6], 1 - action[:, 6] / 100)
    np.testing.assert_array_equal(episode.foreign("observation.state"), state)
    assert_pictures(episode.images("table"), shown, VIDEO_TOLERANCE)
    assert episode.info.missing == ("joint_velocities", "tool_wrench")


def test_v21_field_by_field(tmp_path: Path, workspace: Workspace) -> None:
    shown = [images(LENGTH, 3), images(LENGTH + 2, 4)]
    flags = np.arange(LENGTH + 2) % 3 == 1
    episodes = [
        {
            **numbers(0),
            TOP: shown[0],
            "intervention": np.zeros(LENGTH, bool),
            "next.success": np.zeros(LENGTH, bool),
        },
        {
            **numbers(1, LENGTH + 2),
            TOP: shown[1],
            "intervention": flags,
            "next.success": np.arange(LENGTH + 2) == LENGTH + 1,
            "task_index": np.array([1] * 3 + [0] * (LENGTH - 1), dtype=np.int64),
        },
    ]
    features = {
        **FEATURES,
        "intervention": number_feature(1, dtype="bool"),
        "next.success": number_feature(1, dtype="bool"),
    }
    tasks = ["pick the cup", "pick the cup. Advantage: positive"]
    root = write_lerobot_v21(tmp_path / "cups", episodes, features, tasks)
    results = bring(workspace, root, **OPTIONS)
    assert [r.refused for r in results] == [None, None]
    for columns, result, mark in zip(episodes, results, ("failure", "success"), strict=True):
        assert result.imported is not None
        with reader_of(workspace, result.imported.id) as episode:
            check_numbers(episode, columns, columns[TOP])
            assert (episode.info.task, episode.info.operator_mark) == ("pick the cup", mark)
            assert episode.info.rate_hz == 10
            expected = np.where(columns["intervention"], Source.INTERVENTION, Source.POLICY)
            np.testing.assert_array_equal(episode.sources, expected)
            assert (np.diff(episode.timestamps_ns) == 100_000_000).all()
            assert set(episode.foreign_names) == {
                "observation.state",
                "action",
                "intervention",
                "next.success",
            }
    before = snapshot(workspace.episodes)
    again = bring(workspace, root, **OPTIONS)
    assert [r.imported.status for r in again if r.imported] == ["present", "present"]
    assert snapshot(workspace.episodes) == before


def test_a_dataset_without_known_names_needs_a_mapping(tmp_path: Path, workspace: Workspace) -> None:
    root = write_lerobot_v21(tmp_path / "cups", [{**numbers(), TOP: images()}], FEATURES, ["pick"])
    (refused,) = bring(workspace, root)
    assert refused.refused is not None
    assert refused.refused.startswith("joint_positions, tool_pose, gripper_position, action cannot be had")
    assert "observation.state" in refused.refused and "--mapping" in refused.refused


def test_frames_of_several_tasks_get_the_most_frequent(tmp_path: Path, workspace: Workspace) -> None:
    numbers_ = {**numbers(), TOP: images(), "task_index": np.array([0] * 3 + [1] * (LENGTH - 3))}
    root = write_lerobot_v21(tmp_path / "cups", [numbers_], FEATURES, ["reach", "grasp"])
    info = workspace.find(only(bring(workspace, root, **OPTIONS))).info
    assert info.task == "grasp" and info.extra["import"]["tasks"] == ["grasp", "reach"]


def test_times_that_are_not_even_are_kept(tmp_path: Path, workspace: Workspace) -> None:
    from pyarrow import parquet

    root = write_lerobot_v21(tmp_path / "cups", [{**numbers(), TOP: images()}], FEATURES, ["pick"])
    path = root / "data/chunk-000/episode_000000.parquet"
    table = parquet.read_table(path).to_pydict()
    table["timestamp"] = [i * 0.1 + (0.03 if i > 4 else 0) for i in range(LENGTH)]
    import pyarrow as pa

    parquet.write_table(pa.table(table), path)
    with reader_of(workspace, only(bring(workspace, root, **OPTIONS))) as episode:
        steps = np.diff(episode.timestamps_ns)
        np.testing.assert_allclose(steps, [1e8] * 4 + [1.3e8] + [1e8] * (LENGTH - 6), atol=10)


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Columns]]:
    """Three episodes in one table and one video, and a camera whose images lie in the table, by LeRobot."""
    from lerobot.datasets import LeRobotDataset

    root = tmp_path_factory.mktemp("v3") / "mugs"
    wrist = {**video_feature(), "dtype": "image"}
    features = {
        **FEATURES,
        "observation.images.wrist": wrist,
        "success": number_feature(1, ["success"], "bool"),
    }
    plain = {name: {**feature, "shape": tuple(feature["shape"])} for name, feature in features.items()}
    dataset = LeRobotDataset.create("local/mugs", 10, plain, root=root, robot_type="gen3", use_videos=True)
    episodes = []
    for seed in range(3):
        length = LENGTH + seed
        episode = {
            **numbers(seed, length),
            TOP: images(length, seed),
            "success": np.full((length, 1), seed == 1),
        }
        episode["observation.images.wrist"] = images(length, seed + 10)
        episodes.append(episode)
        for i in range(length):
            dataset.add_frame(
                {**{name: values[i] for name, values in episode.items()}, "task": f"mug {seed}"}
            )
        dataset.save_episode()
    dataset.finalize()
    read = LeRobotDataset("local/mugs", root=root, video_backend="pyav")
    shown = np.stack([(read[i][TOP].numpy() * 255).round().astype(np.uint8) for i in range(len(read))])
    first = 0
    for episode in episodes:  # as LeRobot decodes what its lossy encoder made of them
        following = first + len(episode["action"])
        episode[TOP] = shown[first:following].transpose(0, 2, 3, 1)
        first = following
    return root, episodes


def test_v3_written_by_lerobot(v3: tuple[Path, Sequence[Columns]], workspace: Workspace) -> None:
    root, episodes = v3
    mapping = parse_mapping({"cameras": {"table": "top", "wrist": "wrist"}}).over(MAPPING)
    results = bring(workspace, root, mapping=mapping, robot="kinova_gen3")
    assert [r.refused for r in results] == [None] * 3
    for seed, (columns, result) in enumerate(zip(episodes, results, strict=True)):
        assert result.imported is not None
        with reader_of(workspace, result.imported.id) as episode:
            check_numbers(episode, columns, columns[TOP])
            assert_pictures(episode.images("wrist"), columns["observation.images.wrist"])
            assert episode.info.task == f"mug {seed}"
            assert episode.info.operator_mark == ("success" if seed == 1 else "failure")
            assert not episode.sources.any()
