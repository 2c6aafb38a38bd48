"""Import of robomimic, ALOHA and DROID, field by field."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline import gen3_kinematics
from pipeline.exchange.column_mapping import ColumnMapping
from pipeline.exchange.conversion import UNKNOWN_START
from pipeline.exchange.rotations import from_rotation_vector, product
from pipeline.workspace import Workspace
from tests.pipeline.exchange.foreign_samples import (
    DROID_START_MS,
    LENGTH,
    OSC_POSE,
    aloha_columns,
    droid_columns,
    images,
    robomimic_demo,
    write_aloha_file,
    write_droid_folder,
    write_robomimic_file,
)
from tests.pipeline.exchange.imports import assert_close, assert_pictures, bring, only, reader_of, snapshot

TASK = "lift the cube"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "lab")


def test_robomimic_field_by_field(tmp_path: Path, workspace: Workspace) -> None:
    demos = [robomimic_demo(0), robomimic_demo(2, LENGTH + 3)]
    path = write_robomimic_file(tmp_path / "low_dim.hdf5", demos)
    results = bring(workspace, path, task=TASK, operator="ana")
    assert [r.refused for r in results] == [None, None]
    for demo, result in zip(demos, results, strict=True):
        assert result.imported is not None and result.imported.frames == len(demo["actions"])
        with reader_of(workspace, result.imported.id) as episode:
            info = episode.info
            assert (info.task, info.operator, info.robot) == (TASK, "ana", "robosuite Panda")
            assert (info.rate_hz, info.created, info.operator_mark) == (20.0, UNKNOWN_START, "success")
            assert info.missing == ("tool_wrench",) and not info.missing_for_training
            assert info.extra["env_args"]["env_name"] == "Lift"
            assert_close(episode.state("joint_positions"), demo["obs/robot0_joint_pos"])
            assert_close(episode.state("joint_velocities"), demo["obs/robot0_joint_vel"])
            assert_close(episode.state("tool_pose")[:, :3], demo["obs/robot0_eef_pos"])
            x, y, z, w = demo["obs/robot0_eef_quat"].T
            stored = episode.state("tool_pose")[:, 3:]
            assert_close(np.abs((stored * np.stack([w, x, y, z], 1)).sum(1)), np.ones(len(x)))
            opening = demo["obs/robot0_gripper_qpos"][:, 0]
            assert_close(episode.state("gripper_position")[:, 0], 1 - opening / 0.04)
            scale = np.array([0.05] * 3 + [0.5] * 3) * 20
            assert_close(episode.actions[:, :6], demo["actions"][:, :6] * scale)
            assert_close(episode.actions[:, 6], (demo["actions"][:, 6] + 1) / 2)
            assert np.isnan(episode.policy_actions).all() and not episode.sources.any()
            steps = np.diff(episode.timestamps_ns)
            assert (np.abs(steps - 50_000_000) <= 1).all()
            assert info.cameras == ("agentview", "robot0_eye_in_hand")
            for camera in info.cameras:
                assert_pictures(episode.images(camera), demo[f"obs/{camera}_image"])
            pixels = {"obs/agentview_image", "obs/robot0_eye_in_hand_image"}
            assert set(episode.foreign_names) == set(demo) - pixels
            for name in episode.foreign_names:
                kept = episode.foreign(name)
                assert kept.dtype == demo[name].dtype
                np.testing.assert_array_equal(kept, demo[name])
    masks = [workspace.find(r.imported.id).info.extra["masks"] for r in results if r.imported]
    assert masks == [["train"], []]


def test_robosuite_1_5_absolute_and_position_controllers(tmp_path: Path, workspace: Workspace) -> None:
    demo = robomimic_demo(1)
    arms = {"right": {**OSC_POSE, "input_type": "delta", "output_max": [0.1] * 6, "output_min": [-0.1] * 6}}
    nested = {"type": "BASIC", "body_parts": arms}
    path = write_robomimic_file(tmp_path / "nested.hdf5", [demo], nested, lang=TASK)
    with reader_of(workspace, only(bring(workspace, path))) as episode:
        assert episode.info.task == TASK
        assert_close(episode.actions[:, :6], demo["actions"][:, :6] * 0.1 * 20)

    turn = np.random.default_rng(0).normal(scale=0.01, size=(LENGTH, 3))
    x, y, z, w = demo["obs/robot0_eef_quat"].T
    goal = product(from_rotation_vector(turn), np.stack([w, x, y, z], axis=1))
    from pipeline.exchange.rotations import to_rotation_vector

    moved = demo["obs/robot0_eef_pos"] + 0.01
    absolute = {**demo, "actions": np.column_stack([moved, to_rotation_vector(goal), demo["actions"][:, 6]])}
    path = write_robomimic_file(tmp_path / "absolute.hdf5", [absolute], {**OSC_POSE, "control_delta": False})
    with reader_of(workspace, only(bring(workspace, path, task=TASK))) as episode:
        assert_close(episode.actions[:, :3], np.full((LENGTH, 3), 0.2))
        np.testing.assert_allclose(episode.actions[:, 3:6], turn * 20, atol=1e-4)

    only_position = {**demo, "actions": demo["actions"][:, [0, 1, 2, 6]]}
    controller = {
        **OSC_POSE,
        "type": "OSC_POSITION",
        "output_max": [0.05, 0.05, 0.02],
        "output_min": [-0.05, -0.05, -0.04],
    }
    path = write_robomimic_file(tmp_path / "position.hdf5", [only_position], controller)
    with reader_of(workspace, only(bring(workspace, path, task=TASK))) as episode:
        assert_close(episode.actions[:, 2], (demo["actions"][:, 2] * 0.03 - 0.01) * 20)
        assert not episode.actions[:, 3:6].any()


def test_a_joint_controller_is_refused_unless_missing_is_allowed(
    tmp_path: Path, workspace: Workspace
) -> None:
    path = write_robomimic_file(tmp_path / "joint.hdf5", [robomimic_demo()], {"type": "JOINT_POSITION"})
    (refused,) = bring(workspace, path, task=TASK)
    assert refused.refused is not None and refused.refused.startswith("action cannot be had")
    assert "7 actions of the controller JOINT_POSITION" in refused.refused
    assert "--allow-missing" in refused.refused and not list(workspace.episodes.glob("*/*"))
    with reader_of(workspace, only(bring(workspace, path, task=TASK, allow_missing=True))) as episode:
        assert episode.info.missing == ("tool_wrench", "action")
        assert np.isnan(episode.actions).all()


@pytest.mark.parametrize("compress", [False, True])
def test_aloha_with_one_arm(tmp_path: Path, workspace: Workspace, compress: bool) -> None:
    columns = aloha_columns(8)
    shown = {"cam_high": images(seed=1), "cam_wrist": images(seed=2)}
    path = write_aloha_file(tmp_path / "pick" / "episode_0.hdf5", columns, shown, compress=compress)
    episode_id = only(bring(workspace, path, task=TASK, robot="kinova_gen3"))
    with reader_of(workspace, episode_id) as episode:
        qpos, targets = columns["observations/qpos"], columns["action"]
        assert episode.info.rate_hz == 50 and episode.info.missing == ("tool_wrench",)
        assert_close(episode.state("joint_positions"), qpos[:, :7])
        assert_close(episode.state("joint_velocities"), columns["observations/qvel"][:, :7])
        assert_close(episode.state("gripper_position")[:, 0], 1 - qpos[:, 7])
        here = np.stack([gen3_kinematics.tool_pose(row) for row in qpos[:, :7]])
        goal = np.stack([gen3_kinematics.tool_pose(row) for row in targets[:, :7]])
        assert_close(episode.state("tool_pose")[:, :3], here[:, :3, 3])
        np.testing.assert_allclose(episode.actions[:, :3], (goal - here)[:, :3, 3] * 50, atol=1e-4)
        assert_close(episode.actions[:, 6], 1 - targets[:, 7])
        for camera, pictures in shown.items():
            assert_pictures(episode.images(camera), pictures, 20 if compress else 6)
        np.testing.assert_array_equal(episode.foreign("observations/effort"), columns["observations/effort"])


def test_a_gen3_that_nobody_named_is_guessed_at(tmp_path: Path, workspace: Workspace) -> None:
    path = write_aloha_file(tmp_path / "episode_0.hdf5", aloha_columns(8), {"top": images()})
    (result,) = bring(workspace, path, task=TASK)
    assert result.refused is not None and result.refused.startswith("tool_pose, action cannot be had")
    assert result.refused.endswith("--robot kinova_gen3 computes the tool pose from the joints")


def test_degrees_are_not_taken_for_radians(tmp_path: Path, workspace: Workspace) -> None:
    columns = aloha_columns(8)
    columns["observations/qpos"][:, :7] = np.degrees(columns["observations/qpos"][:, :7])
    path = write_aloha_file(tmp_path / "episode_0.hdf5", columns, {"top": images()})
    (result,) = bring(workspace, path, task=TASK, robot="kinova_gen3")
    assert result.refused is not None and result.refused.startswith("joint_positions reach ")
    assert result.refused.endswith('they look like degrees, give unit = "deg" in the mapping')


def test_a_robomimic_file_without_a_rate_has_20_hz(tmp_path: Path, workspace: Workspace) -> None:
    path = write_robomimic_file(tmp_path / "lift.hdf5", [robomimic_demo()], control_freq=None)
    (result,) = bring(workspace, path, task=TASK)
    assert result.imported is not None and "control_freq: 20 Hz" in result.imported.notes[0]
    assert workspace.find(result.imported.id).info.rate_hz == 20


def test_aloha_with_two_arms_is_for_looking_only(tmp_path: Path, workspace: Workspace) -> None:
    columns = aloha_columns(14)
    path = write_aloha_file(tmp_path / "fold" / "episode_3.hdf5", columns, {"cam_low": images()})
    (refused,) = bring(workspace, path, task=TASK)
    assert refused.refused is not None and "joint_positions" in refused.refused
    assert "--robot" not in refused.refused
    (result,) = bring(workspace, path, task=TASK, allow_missing=True)
    assert result.imported is not None and "not for training" in result.imported.notes[0]
    with reader_of(workspace, result.imported.id) as episode:
        assert set(episode.info.missing_for_training) == {
            "joint_positions",
            "tool_pose",
            "gripper_position",
            "action",
        }
        np.testing.assert_array_equal(episode.foreign("action"), columns["action"])


@pytest.mark.parametrize("compress", [False, True])
def test_aloha_of_a_recorder_that_gave_opencv_bgr(
    tmp_path: Path, workspace: Workspace, compress: bool
) -> None:
    shown = images()
    bgr = np.ascontiguousarray(shown[..., ::-1])
    path = write_aloha_file(tmp_path / "e.hdf5", aloha_columns(14), {"top": bgr}, compress=compress)
    mapping = ColumnMapping(image_order="bgr")
    episode_id = only(bring(workspace, path, task=TASK, mapping=mapping, allow_missing=True))
    with reader_of(workspace, episode_id) as episode:
        assert_pictures(episode.images("top"), shown, 20 if compress else 6)


def test_aloha_depth_is_no_camera(tmp_path: Path, workspace: Workspace) -> None:
    path = write_aloha_file(tmp_path / "e.hdf5", aloha_columns(14), {"top": images()})
    with h5py.File(path, "a") as file:
        file["observations/images/top_depth"] = np.zeros((LENGTH, 8, 8), np.uint16)
    (result,) = bring(workspace, path, task=TASK, allow_missing=True)
    assert result.imported is not None
    assert "not imported: observations/images/top_depth" in result.imported.notes
    assert workspace.find(result.imported.id).info.cameras == ("top",)


@pytest.mark.parametrize("metadata", [True, False])
def test_droid_field_by_field(tmp_path: Path, workspace: Workspace, metadata: bool) -> None:
    columns = droid_columns()
    # As recorded: the last image is taken before the button that ends the episode is seen.
    shown = {name: images(LENGTH + 1, seed) for seed, name in enumerate(("wrist", "ext1", "ext2"))}
    folder = write_droid_folder(tmp_path / "Fri_Jul__7_09_42_23_2023", columns, shown, metadata=metadata)
    mapping = ColumnMapping(cameras=(("wrist", "wrist"), ("table", "ext1")))
    (result,) = bring(workspace, folder, mapping=mapping)
    assert result.imported is not None, result.refused
    assert result.imported.notes == ("cameras left out: ext2",)
    with reader_of(workspace, result.imported.id) as episode:
        info, state = episode.info, "observation/robot_state"
        assert (info.task, info.operator) == ("Put the marker in the pot", "Ana Robot")
        assert (info.robot, info.rate_hz, info.operator_mark) == ("franka_panda", 15.0, "success")
        assert info.created == "2023-07-07T16:42:23.123Z"
        assert info.missing == ("tool_wrench",)
        assert_close(episode.state("joint_positions"), columns[f"{state}/joint_positions"])
        assert_close(episode.state("joint_velocities"), columns[f"{state}/joint_velocities"])
        assert_close(episode.state("gripper_position"), columns[f"{state}/gripper_position"])
        here, goal = columns[f"{state}/cartesian_position"], columns["action/cartesian_position"]
        assert_close(episode.state("tool_pose")[:, :3], here[:, :3])
        assert_close(episode.actions[1:, :3], (goal - here)[1:, :3] * 15)
        assert_close(episode.actions[1:, 6], columns["action/gripper_position"][1:])
        # The first step's button was not pressed: nothing was sent.
        assert not episode.actions[0, :6].any()
        assert_close(episode.actions[0, 6], columns[f"{state}/gripper_position"][0])
        times = columns["observation/timestamp/robot_state/read_start"] * 1_000_000
        np.testing.assert_array_equal(episode.timestamps_ns, times)
        assert episode.timestamps_ns[0] == DROID_START_MS * 1_000_000
        np.testing.assert_array_equal(episode.camera_timestamps_ns("table"), times - 41_000_000)
        assert info.cameras == ("wrist", "table")
        assert_pictures(episode.images("table"), shown["ext1"][:LENGTH], 40)
        assert_pictures(episode.images("wrist"), shown["wrist"][:LENGTH], 40)
        assert set(episode.foreign_names) == set(columns)


def test_droid_with_svo_files_only_says_so(tmp_path: Path, workspace: Workspace) -> None:
    folder = write_droid_folder(tmp_path / "run", droid_columns(), {})
    (folder / "recordings" / "SVO").mkdir(parents=True)
    (folder / "recordings" / "SVO" / "14013996.svo").write_bytes(b"svo")
    (result,) = bring(workspace, folder)
    assert result.refused is not None and "ZED SDK" in result.refused and "\n" not in result.refused


def test_droid_video_that_is_too_short(tmp_path: Path, workspace: Workspace) -> None:
    columns = droid_columns(length=20)
    folder = write_droid_folder(tmp_path / "a", columns, {"ext1": images(19)})
    (result,) = bring(workspace, folder)
    assert result.imported is not None and result.imported.frames == 19
    assert "the last 1 steps have no image" in result.imported.notes[0]
    folder = write_droid_folder(tmp_path / "b", columns, {"ext1": images(10)})
    (result,) = bring(workspace, folder)
    assert result.refused is not None and "cut short" in result.refused


def test_importing_twice_changes_nothing(tmp_path: Path, workspace: Workspace) -> None:
    write_robomimic_file(tmp_path / "data" / "lift.hdf5", [robomimic_demo(0), robomimic_demo(1)])
    write_aloha_file(tmp_path / "data" / "episode_0.hdf5", aloha_columns(8), {"top": images()})
    write_droid_folder(tmp_path / "data" / "droid" / "run", droid_columns(), {"wrist": images()})
    options = {"task": TASK, "robot": "kinova_gen3"}
    first = bring(workspace, tmp_path / "data", **options)
    assert [r.imported.status for r in first if r.imported] == ["imported"] * 4
    before = snapshot(workspace.episodes)
    again = bring(workspace, tmp_path / "data", tmp_path / "data" / "lift.hdf5", **options)
    assert [r.imported.status for r in again if r.imported] == ["present"] * 4
    assert [r.imported.id for r in again if r.imported] == [r.imported.id for r in first if r.imported]
    assert snapshot(workspace.episodes) == before
    other = bring(workspace, tmp_path / "data" / "lift.hdf5", task="another task")
    assert all(r.refused is not None and "with other options" in r.refused for r in other)
    assert snapshot(workspace.episodes) == before
    assert not [finding for finding in workspace.check() if finding.severity == "fatal"]


def test_dry_run_writes_nothing(tmp_path: Path, workspace: Workspace) -> None:
    path = write_robomimic_file(tmp_path / "lift.hdf5", [robomimic_demo()])
    (result,) = bring(workspace, path, task=TASK, dry_run=True)
    assert result.imported is not None and result.imported.status == "would be imported"
    assert not workspace.root.exists()
