"""Actions in other spaces and back: exact to float32, near no rotation, with quaternions of either sign."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.exchange import rotations
from pipeline.exchange.action_spaces import (
    ActionSpace,
    action_names,
    action_units,
    from_space,
    to_space,
    tool_poses,
)
from pipeline.gen3_kinematics import READY, quaternion_from_rotation, rotation_from_quaternion, tool_pose

INVERTIBLE = (ActionSpace.TWIST, ActionSpace.DELTA_POSE, ActionSpace.ABSOLUTE_POSE)
# A quaternion's float32 components are wrong by up to 6e-8, and so is a coordinate near 1 m.
EPSILON = 2.0**-22

lengths = st.integers(1, 12)
seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 3.0])
rates = st.sampled_from([5.0, 10.0, 15.0, 30.0])


def episode(seed: int, length: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twists, tool poses with quaternions of random signs, and joint positions, float32 (T, 7) each."""
    rng = np.random.default_rng(seed)
    twist = rng.uniform(-1, 1, (length, 7)) * scale
    twist[:, 6] = rng.uniform(0, 1, length)
    quaternions = rotations.normalised(rng.normal(size=(length, 4)))
    poses = np.concatenate([rng.uniform(-1, 1, (length, 3)), quaternions], axis=1)
    joints = rng.uniform(-3, 3, (length, 7))
    return twist.astype(np.float32), poses.astype(np.float32), joints.astype(np.float32)


@settings(max_examples=60)
@given(seeds, lengths, scales, rates, st.sampled_from(INVERTIBLE))
def test_twists_come_back(seed: int, length: int, scale: float, rate_hz: float, space: ActionSpace) -> None:
    twist, poses, joints = episode(seed, length, scale)
    there = to_space(space, twist, poses, joints, rate_hz)
    back = from_space(space, there, poses, joints, rate_hz)
    assert there.dtype == back.dtype == np.float32
    assert there.shape == (length, len(action_names(space)))
    tolerance = 0.0 if space is ActionSpace.TWIST else EPSILON * scale
    if space is ActionSpace.ABSOLUTE_POSE:
        tolerance += 2 * EPSILON * rate_hz
    np.testing.assert_allclose(back, twist, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(back[:, 6], twist[:, 6])


@settings(max_examples=30)
@given(seeds, lengths, scales, rates)
def test_the_pose_steered_for_is_the_observed_one_moved(
    seed: int, length: int, scale: float, rate_hz: float
) -> None:
    twist, poses, joints = episode(seed, length, scale)
    delta = to_space(ActionSpace.DELTA_POSE, twist, poses, joints, rate_hz).astype(np.float64)
    absolute = to_space(ActionSpace.ABSOLUTE_POSE, twist, poses, joints, rate_hz)
    for i in range(length):
        angle = np.linalg.norm(delta[i, 3:6])
        axis = delta[i, 3:6] / angle if angle else np.array([0.0, 0.0, 1.0])
        cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
        expected = turn @ rotation_from_quaternion(poses[i, 3:])
        np.testing.assert_allclose(rotation_from_quaternion(absolute[i, 3:7]), expected, atol=1e-6)
    np.testing.assert_allclose(absolute[:, :3], poses[:, :3] + delta[:, :3], atol=2e-7)


@settings(max_examples=30)
@given(seeds, lengths)
def test_signs_of_observed_quaternions_do_not_matter(seed: int, length: int) -> None:
    twist, poses, joints = episode(seed, length, 1.0)
    flipped = poses.copy()
    flipped[:, 3:] *= np.random.default_rng(seed + 1).choice([-1, 1], (length, 1))
    for space in INVERTIBLE:
        there = to_space(space, twist, poses, joints, 10.0)
        np.testing.assert_allclose(there, to_space(space, twist, flipped, joints, 10.0), atol=1e-6)
        np.testing.assert_array_equal(
            from_space(space, there, poses, joints, 10.0), from_space(space, there, flipped, joints, 10.0)
        )


def test_quaternions_of_a_tool_that_points_down_do_not_jump() -> None:
    angles = np.linspace(-0.2, 0.2, 41)  # about base x, around half a turn: w passes through 0
    quaternions = np.stack([-np.sin(angles / 2), np.cos(angles / 2), 0 * angles, 0 * angles], axis=1)
    poses = np.concatenate([np.zeros((41, 3)), quaternions * np.where(quaternions[:, :1] < 0, -1, 1)], axis=1)
    absolute = to_space(ActionSpace.ABSOLUTE_POSE, np.zeros((41, 7)), poses, np.zeros((41, 7)), 10.0)
    assert np.abs(np.diff(absolute[:, 3:7], axis=0)).max() < 0.02
    assert absolute[0, 4] > 0.9


def test_joint_positions_are_those_of_the_next_frame() -> None:
    twist, poses, joints = episode(3, 5, 1.0)
    reached = to_space(ActionSpace.JOINT_POSITIONS, twist, poses, joints, 10.0)
    np.testing.assert_array_equal(reached[:-1, :7], joints[1:])
    np.testing.assert_array_equal(reached[-1, :7], joints[-1])
    np.testing.assert_array_equal(reached[:, 7], twist[:, 6])


@settings(max_examples=30)
@given(seeds, st.integers(2, 10))
def test_joint_positions_give_the_twist_of_the_motion(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    joints = (READY + np.cumsum(rng.normal(scale=0.02, size=(length, 7)), axis=0)).astype(np.float32)
    poses = []
    for row in joints:
        transform = tool_pose(row)
        poses.append(np.concatenate([transform[:3, 3], quaternion_from_rotation(transform[:3, :3])]))
    pose = np.array(poses, dtype=np.float32)
    actions = to_space(ActionSpace.JOINT_POSITIONS, np.zeros((length, 7)), pose, joints, 10.0)
    twist = from_space(ActionSpace.JOINT_POSITIONS, actions, pose, joints, 10.0)
    moved = from_space(
        ActionSpace.ABSOLUTE_POSE, np.c_[np.r_[pose[1:], pose[-1:]], actions[:, 7]], pose, joints, 10.0
    )
    np.testing.assert_allclose(twist, moved, atol=1e-5)
    np.testing.assert_allclose(twist[-1], 0, atol=1e-5)


def test_forward_kinematics_of_many_rows_are_those_of_each() -> None:
    joints = np.random.default_rng(0).uniform(-np.pi, np.pi, (50, 7))
    for row, pose in zip(joints, tool_poses(joints), strict=True):
        transform = tool_pose(row)
        np.testing.assert_allclose(pose[:3], transform[:3, 3], atol=1e-12)
        np.testing.assert_allclose(rotation_from_quaternion(pose[3:]), transform[:3, :3], atol=1e-12)


@settings(max_examples=50)
@given(seeds, st.sampled_from([0.0, 1e-14, 1e-9, 1e-4, 1.0, 3.1]))
def test_rotation_vectors_come_back(seed: int, angle: float) -> None:
    axes = np.random.default_rng(seed).normal(size=(6, 3))
    vectors = axes / np.linalg.norm(axes, axis=1, keepdims=True) * angle
    quaternions = rotations.from_rotation_vector(vectors)
    np.testing.assert_allclose(rotations.to_rotation_vector(quaternions), vectors, rtol=1e-12, atol=1e-24)
    np.testing.assert_allclose(rotations.to_rotation_vector(-quaternions), vectors, rtol=1e-12, atol=1e-24)
    matrices = np.stack([rotation_from_quaternion(q) for q in quaternions])
    same = np.abs((rotations.from_matrix(matrices) * quaternions).sum(1))
    np.testing.assert_allclose(same, 1, atol=1e-12)


def test_rows_that_lack_something_are_nan_and_only_they() -> None:
    twist, poses, joints = episode(4, 6, 1.0)
    whole = to_space(ActionSpace.ABSOLUTE_POSE, twist, poses, joints, 10.0)
    poses[2] = np.nan
    twist[4] = np.nan
    absolute = to_space(ActionSpace.ABSOLUTE_POSE, twist, poses, joints, 10.0)
    assert np.isnan(absolute[2, :7]).all() and np.isnan(absolute[4]).all()
    for i in (0, 1, 3, 5):
        assert np.allclose(absolute[i], whole[i]) or np.allclose(absolute[i, 3:7], -whole[i, 3:7])


def test_units_and_names_fit() -> None:
    for space in ActionSpace:
        assert len(set(action_names(space))) == len(action_names(space)) in (7, 8)
        assert action_names(space)[-1] == "gripper.target"
        assert action_units(space).endswith(", 1")


def test_arrays_that_do_not_fit_are_refused() -> None:
    twist, poses, joints = episode(5, 4, 1.0)
    with pytest.raises(InputError, match="absolute_pose it must be"):
        from_space(ActionSpace.ABSOLUTE_POSE, twist, poses, joints, 10.0)
    with pytest.raises(InputError, match="tool_pose has shape"):
        to_space(ActionSpace.DELTA_POSE, twist, poses[1:], joints, 10.0)
    with pytest.raises(InputError, match="rate"):
        to_space(ActionSpace.DELTA_POSE, twist, poses, joints, 0.0)
