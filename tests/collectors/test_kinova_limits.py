"""The limits as pure functions: never faster, never turned round, never further out; twice is once."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.kinova_limits import (
    MotionLimits,
    gripper_step,
    limit_action,
    limit_joints,
    limit_speed,
    limit_to_box,
    predicted_joint_velocities,
)
from collectors.kinova_units import GRIPPER, JOINTS, STATE_SIZE, TOOL_POSITION
from pipeline.errors import InputError
from pipeline.gen3_kinematics import JOINT_LIMITS, READY, jacobian

LIMITS = MotionLimits()
SPEEDS = st.floats(-3, 3)
TWISTS = st.lists(SPEEDS, min_size=6, max_size=6).map(np.array)
POSITIONS = st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3).map(np.array)
JOINT_ANGLES = st.lists(st.floats(-2.5, 2.5), min_size=7, max_size=7).map(np.array)


def state_at(position: np.ndarray, joints: np.ndarray = READY) -> np.ndarray:
    """A state (28,) with the tool there and the joints so, at rest."""
    state = np.zeros(STATE_SIZE)
    state[JOINTS], state[TOOL_POSITION] = joints, position
    return state


@given(TWISTS)
def test_speeds_are_kept_and_directions_too(twist: np.ndarray) -> None:
    """The greatest speed is over all directions; a slower twist is left alone."""
    slowed, said = limit_speed(twist, LIMITS)
    for part, top in ((slice(0, 3), LIMITS.linear_speed), (slice(3, 6), LIMITS.angular_speed)):
        before, after = np.linalg.norm(twist[part]), np.linalg.norm(slowed[part])
        assert after <= top + 1e-12
        np.testing.assert_allclose(slowed[part] * before, twist[part] * after, atol=1e-9)
        if before <= top:
            np.testing.assert_array_equal(slowed[part], twist[part])
    np.testing.assert_allclose(limit_speed(slowed, LIMITS)[0], slowed)
    assert all("speed" in words for words in said)


@given(TWISTS.map(lambda t: t[:3]), POSITIONS)
def test_the_box_only_ever_shortens_what_goes_out(velocity: np.ndarray, position: np.ndarray) -> None:
    """Inwards and along a wall is free, from anywhere; outwards slows and ends at the wall."""
    kept, _ = limit_to_box(velocity, position, LIMITS)
    low, high = np.array(LIMITS.box_low), np.array(LIMITS.box_high)
    assert (kept * velocity >= 0).all()
    assert (np.abs(kept) <= np.abs(velocity) + 1e-12).all()
    inwards = velocity * ((low + high) / 2 - position) >= 0
    np.testing.assert_array_equal(kept[inwards & (position < low)], velocity[inwards & (position < low)])
    np.testing.assert_array_equal(kept[inwards & (position > high)], velocity[inwards & (position > high)])
    assert (kept[position >= high] <= 0).all()
    assert (kept[position <= low] >= 0).all()
    after = position + kept * LIMITS.slow_down_s
    inside = (position >= low) & (position <= high)
    assert (after[inside] <= high[inside] + 1e-9).all()
    assert (after[inside] >= low[inside] - 1e-9).all()
    np.testing.assert_array_equal(limit_to_box(kept, position, LIMITS)[0], kept)


@pytest.mark.parametrize(
    ("velocity", "position", "words"),
    [
        ((0, 0, -0.1), (0.4, 0, 0.02), "workspace: held at z = 0.02 m"),
        ((0, 0, -0.1), (0.4, 0, 0.03), "workspace: slowed near z = 0.02 m"),
        ((0.2, 0, 0), (0.9, 0, 0.3), "workspace: held at x = 0.80 m"),
        ((0, 0.2, 0), (0.4, 0.54, 0.3), "workspace: slowed near y = 0.55 m"),
    ],
)
def test_the_box_says_which_wall(velocity: Any, position: Any, words: str) -> None:
    """In words, with the wall."""
    assert limit_to_box(np.array(velocity, float), np.array(position, float), LIMITS)[1] == (words,)


@settings(max_examples=60)
@given(TWISTS, JOINT_ANGLES)
def test_joints_keep_their_margin(twist: np.ndarray, joints: np.ndarray) -> None:
    """The direction stays, no joint is predicted to pass its margin within the slow-down time."""
    kept, said = limit_joints(twist, joints, np.zeros(7), LIMITS)
    share = float(np.linalg.norm(kept)) / max(float(np.linalg.norm(twist)), 1e-12)
    assert share <= 1 + 1e-12
    np.testing.assert_allclose(kept, twist * share, atol=1e-9)
    after = np.abs(joints + predicted_joint_velocities(joints, kept) * LIMITS.slow_down_s)
    top = np.maximum(JOINT_LIMITS - LIMITS.joint_margin, np.abs(joints))
    assert (after <= top + 1e-6).all()
    np.testing.assert_allclose(limit_joints(kept, joints, np.zeros(7), LIMITS)[0], kept, atol=1e-9)
    assert bool(said) <= (share < 1)


@pytest.mark.parametrize("joint", [1, 3, 5])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_joint_at_its_margin_stops_and_may_go_back(joint: int, side: float) -> None:
    """Also one that is already past it; the words name the joint as people count."""
    joints = READY.copy()
    joints[joint] = side * (JOINT_LIMITS[joint] - LIMITS.joint_margin / 2)
    outwards = jacobian(joints)[:, joint] * side * 0.1
    assert predicted_joint_velocities(joints, outwards)[joint] * side > 0
    kept, said = limit_joints(outwards, joints, np.zeros(7), LIMITS)
    assert not kept.any()
    assert said[0].startswith(f"joint {joint + 1}: held at its limit")
    back, said = limit_joints(-outwards, joints, np.zeros(7), LIMITS)
    np.testing.assert_array_equal(back, -outwards)
    assert said == ()


def test_a_joint_that_moves_more_than_predicted_slows_the_motion() -> None:
    """The arm chooses its elbow by itself: what is measured counts too."""
    joints = READY.copy()
    joints[3] = -(JOINT_LIMITS[3] - LIMITS.joint_margin - 0.02)
    outwards = -jacobian(joints)[:, 3] * 0.01
    unhurried, _ = limit_joints(outwards, joints, np.zeros(7), LIMITS)
    measured = np.zeros(7)
    measured[3] = -0.5
    slowed, said = limit_joints(outwards, joints, measured, LIMITS)
    assert np.linalg.norm(slowed) < np.linalg.norm(unhurried)
    assert "joint 4" in said[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", range(7))
def test_what_is_no_number_moves_nothing(bad: float, where: int) -> None:
    """Zero twist, the gripper stays where it is."""
    action = np.full(7, 0.1)
    action[where] = bad
    state = state_at(np.array([0.4, 0, 0.3]))
    state[GRIPPER] = 0.4
    limited = limit_action(action, state, LIMITS)
    np.testing.assert_array_equal(limited.action, [0, 0, 0, 0, 0, 0, 0.4])
    assert "refused" in limited.limits[0]


@settings(max_examples=60)
@given(TWISTS, POSITIONS, JOINT_ANGLES, st.floats(-5, 5))
def test_all_together(twist: np.ndarray, position: np.ndarray, joints: np.ndarray, gripper: float) -> None:
    """Limited twice is limited once, so robot object and driver agree."""
    state = state_at(position, joints)
    wanted = np.array([*twist, gripper])
    once = limit_action(wanted, state, LIMITS).action
    np.testing.assert_allclose(limit_action(once, state, LIMITS).action, once, atol=1e-9)
    assert (once[:6] * twist >= -1e-12).all()
    assert 0 <= once[6] <= 1
    np.testing.assert_array_equal(wanted[:6], twist)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0.1, 5))
def test_the_gripper_is_no_faster_than_allowed(
    now: float, target: float, elapsed: float, speed: float
) -> None:
    """And never goes past its target."""
    after = gripper_step(now, target, elapsed, MotionLimits(gripper_speed=speed))
    assert abs(after - now) <= speed * elapsed + 1e-12
    assert min(now, target) <= after <= max(now, target)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"linear_speed": 0.0}, "linear_speed"),
        ({"linear_speed": math.nan}, "linear_speed"),
        ({"linear_speed": 0.9}, "at most 0.5"),
        ({"angular_speed": -1.0}, "angular_speed"),
        ({"gripper_speed": True}, "gripper_speed"),
        ({"joint_margin": 1.5}, "joint_margin"),
        ({"slow_down_s": "fast"}, "slow_down_s"),
        ({"box_low": (0.0, 0.0)}, "box_low"),
        ({"box_high": (0.5, math.inf, 0.5)}, "box_high"),
        ({"box_low": (0.9, -0.5, 0.0)}, "empty along x"),
    ],
)
def test_contradictions_fail_when_built(values: dict[str, Any], words: str) -> None:
    """One line that names the setting."""
    with pytest.raises(InputError, match=words) as failed:
        MotionLimits(**values)
    assert "\n" not in str(failed.value)


def test_a_trip_through_json() -> None:
    """Tuples come back as lists, and become tuples again."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(LIMITS).items()}
    assert MotionLimits.from_dict(values) == LIMITS
