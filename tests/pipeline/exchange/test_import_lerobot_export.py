"""Import of LeRobot datasets that we exported: everything comes back, and what is there is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.conditioned_view import make_view
from pipeline.episode import ACTION_NAMES, POLICY_STATE_FIELDS, POLICY_STATE_NAMES, Source, policy_state
from pipeline.episode_file import EpisodeReader
from pipeline.exchange.action_spaces import ActionSpace
from pipeline.lerobot_dataset import export_dataset
from pipeline.workspace import Workspace
from tests.pipeline.episodes import TASK, make_frames, make_info, write_episode
from tests.pipeline.exchange.foreign_samples import LENGTH, SIZE, images, joints
from tests.pipeline.exchange.imports import (
    assert_pictures,
    assert_restored,
    bring,
    only,
    reader_of,
    snapshot,
)
from tests.pipeline.exchange.lerobot_samples import number_feature, video_feature, write_lerobot_v21


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "lab")


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """A workspace with a rollout that was corrected and a demonstration, 32×32 pixels."""
    workspace = Workspace(tmp_path / "first").create()
    for number, source in enumerate((Source.TELEOP, Source.INTERVENTION)):
        rng = np.random.default_rng(number)
        frames = make_frames(LENGTH, seed=number)
        for i, frame in enumerate(frames):
            frame.timestamp_ns += int(rng.integers(0, 5_000_000))
            frame.images = {camera: images(1, 7 * i)[0] for camera in frame.images}
            quaternion = frame.state["tool_pose"][3:]
            quaternion /= np.linalg.norm(quaternion)
            frame.state["joint_positions"] = joints(LENGTH, number)[i].astype(np.float32)
            if source and i > 3:
                frame.source = source
                frame.policy_action = rng.normal(size=7).astype(np.float32)
        info = make_info(
            f"e{number}",
            operator_mark="success" if number else None,
            policy_checkpoint="candidate-3" if number else None,
            truncated=bool(number),
            extra={"seed": number},
        )
        write_episode(workspace.episode_path(TASK, info.id), frames, info)
    return workspace


@pytest.mark.parametrize("space", [ActionSpace.TWIST, ActionSpace.JOINT_POSITIONS])
def test_our_own_export_comes_back_as_it_was(
    lab: Workspace, tmp_path: Path, workspace: Workspace, space: ActionSpace
) -> None:
    entries = lab.list_episodes()
    root = export_dataset(entries, tmp_path / "out", action_space=space, workers=1)
    results = bring(workspace, root)
    assert [r.imported.id for r in results if r.imported] == [e.id for e in entries]
    for entry in entries:
        with EpisodeReader(entry.path) as original, reader_of(workspace, entry.id) as copy:
            assert_restored(copy, original)
            assert copy.foreign_names == ()
            for camera in original.info.cameras:
                assert_pictures(copy.images(camera), original.images(camera), 40)
    before = snapshot(lab.episodes), snapshot(workspace.episodes)
    for where in (lab, workspace):
        assert [r.imported.status for r in bring(where, root) if r.imported] == ["present"] * 2
    assert (snapshot(lab.episodes), snapshot(workspace.episodes)) == before
    refused = bring(lab, root, task="something else")
    assert all(r.refused is not None for r in refused)


def test_a_conditioned_view_comes_back_with_bare_tasks(
    lab: Workspace, tmp_path: Path, workspace: Workspace
) -> None:
    base = export_dataset(lab.list_episodes(), tmp_path / "out", workers=1)
    indicators = {entry.id: np.ones(entry.length, np.int8) for entry in lab.list_episodes()}
    values = {entry.id: np.linspace(-1, 0, entry.length).astype(np.float32) for entry in lab.list_episodes()}
    view = make_view(
        base, indicators, tmp_path / "view", indicator_dropout=0.3, seed=0, extra_columns={"value": values}
    )
    assert [r.imported.status for r in bring(lab, view) if r.imported] == ["present"] * 2
    bring(workspace, view)
    for entry in lab.list_episodes():
        with EpisodeReader(entry.path) as original, reader_of(workspace, entry.id) as copy:
            assert_restored(copy, original)
            assert copy.info.task == TASK and copy.foreign_names == ("value",)
            np.testing.assert_array_equal(copy.foreign("value"), values[entry.id])
    assert [r.imported.status for r in bring(workspace, base) if r.imported] == ["present"] * 2


def test_a_dataset_with_our_names_needs_no_mapping(
    lab: Workspace, tmp_path: Path, workspace: Workspace
) -> None:
    (entry, _) = lab.list_episodes()
    with EpisodeReader(entry.path) as original:
        state = policy_state({name: original.state(name) for name in POLICY_STATE_FIELDS})
        actions = original.actions
    features = {
        "observation.state": number_feature(15, POLICY_STATE_NAMES),
        "action": number_feature(7, ACTION_NAMES),
        "observation.images.table": video_feature(SIZE),
    }
    episode = {"observation.state": state, "action": actions, "observation.images.table": images()}
    root = write_lerobot_v21(tmp_path / "plain", [episode], features, [TASK], robot="simulated_gen3")
    with reader_of(workspace, only(bring(workspace, root))) as copy:
        np.testing.assert_array_equal(copy.actions, actions)
        found = policy_state({name: copy.state(name) for name in POLICY_STATE_FIELDS})
        np.testing.assert_allclose(found[:, :14], state[:, :14], rtol=1e-6)
        np.testing.assert_allclose(found[:, 14], np.clip(state[:, 14], 0, 1), rtol=1e-6)
