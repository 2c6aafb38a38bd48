"""Units between the arm and us: round trips, unwrapped angles, quaternions without jumps; fault words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.kinova_faults import StopCause, base_faults, stop_from_error, stop_from_feedback
from collectors.kinova_units import (
    GRIPPER,
    JOINT_VELOCITIES,
    JOINTS,
    STATE_SIZE,
    TOOL_POSITION,
    TOOL_QUATERNION,
    WRENCH,
    StateReader,
    degrees_from_quaternion,
    joints_to_arm,
    nearest_turn,
    quaternion_from_degrees,
    twist_to_arm,
)
from pipeline.episode import STATE_NAMES
from pipeline.exchange.orientations import quaternions
from pipeline.gen3_kinematics import HOME, READY, rotation_from_quaternion

DEGREES = st.floats(-180, 180)


def feedback(
    joints_deg: Any = (0.0,) * 7, theta: Any = (0, 0, 0), gripper: Any = (0.0,), **base: Any
) -> SimpleNamespace:
    """A message with the fields of ``BaseCyclic.Feedback`` that are read."""
    wrench = {
        f"tool_external_wrench_{kind}_{axis}": base.get(f"{kind}_{axis}", 0.0)
        for kind in ("force", "torque")
        for axis in "xyz"
    }
    pose = {f"tool_pose_{axis}": i / 10 for i, axis in enumerate("xyz", start=1)}
    pose |= {f"tool_pose_theta_{axis}": value for axis, value in zip("xyz", theta, strict=True)}
    motors = [SimpleNamespace(position=p) for p in gripper]
    return SimpleNamespace(
        actuators=[SimpleNamespace(position=d % 360, velocity=10.0 * i) for i, d in enumerate(joints_deg)],
        base=SimpleNamespace(**pose, **wrench),
        interconnect=SimpleNamespace(gripper_feedback=SimpleNamespace(motor=motors)),
    )


def test_the_state_has_the_schemas_order_and_units() -> None:
    """Percent, degrees and metres in; 0..1, rad and metres out, in the order of STATE_NAMES."""
    state = StateReader().read(feedback(gripper=(40.0,), force_x=1.0, torque_z=-2.0))
    assert state.shape == (STATE_SIZE,) == (len(STATE_NAMES),)
    named = dict(zip(STATE_NAMES, state, strict=True))
    assert named["gripper.pos"] == state[GRIPPER] == pytest.approx(0.4)
    assert named["joint_3.vel"] == pytest.approx(np.deg2rad(20.0))
    assert (named["tool.x"], named["tool.y"], named["tool.z"]) == (0.1, 0.2, 0.3)
    assert (named["wrench.fx"], named["wrench.tz"]) == (1.0, -2.0)
    assert state[JOINT_VELOCITIES][6] == named["joint_7.vel"]
    assert state[TOOL_POSITION][2] == named["tool.z"]
    assert state[WRENCH][0] == named["wrench.fx"]


def test_an_arm_without_a_gripper_or_with_six_joints() -> None:
    """The first reads as open, the second is not ours to drive."""
    assert StateReader().read(feedback(gripper=()))[GRIPPER] == 0.0
    with pytest.raises(ValueError, match="7-joint"):
        StateReader().read(feedback(joints_deg=(0.0,) * 6))


@given(st.lists(st.floats(-1000, 1000), min_size=7, max_size=7), st.lists(DEGREES, min_size=7, max_size=7))
def test_unwrapping_follows_any_motion(start: list[float], turn: list[float]) -> None:
    """Steps of less than half a turn add up, through any number of whole turns."""
    reader = StateReader()
    first = reader.read(feedback(start))[JOINTS]
    steps = np.linspace(0, 1, 60)[1:, None] * np.array(turn) * 20
    followed = np.array([reader.read(feedback(np.array(start) + step))[JOINTS] for step in steps])
    np.testing.assert_allclose(followed - first, np.deg2rad(steps), atol=1e-6)


@pytest.mark.parametrize("joints", [HOME, READY, READY + 0.1, READY - 0.1])
def test_usual_postures_start_unwrapped(joints: np.ndarray) -> None:
    """Joint 3 stands at 180° in them: it must not come out as -180° one day and 180° the next."""
    read = StateReader().read(feedback(np.rad2deg(joints)))[JOINTS]
    np.testing.assert_allclose(read, joints, atol=1e-9)


@given(st.lists(st.floats(-50, 50), min_size=7, max_size=7).map(np.array))
def test_joint_angles_for_the_arm(joints: np.ndarray) -> None:
    """Degrees in 0..360, the same posture."""
    degrees = np.array(joints_to_arm(joints))
    assert ((degrees >= 0) & (degrees <= 360)).all()
    np.testing.assert_allclose(nearest_turn(np.deg2rad(degrees), joints), joints, atol=1e-6)


@given(st.lists(DEGREES, min_size=3, max_size=3).map(np.array))
def test_orientations(theta: np.ndarray) -> None:
    """Fixed axes x, y, z as the project's own conversion has them, and back to the same rotation."""
    quaternion = quaternion_from_degrees(theta)
    np.testing.assert_allclose(np.linalg.norm(quaternion), 1.0)
    reference = quaternions("euler_xyz", np.deg2rad(theta)[None])[0]
    np.testing.assert_allclose(abs(quaternion @ reference), 1.0, atol=1e-9)
    back = quaternion_from_degrees(degrees_from_quaternion(quaternion))
    np.testing.assert_allclose(
        rotation_from_quaternion(back), rotation_from_quaternion(quaternion), atol=1e-5
    )


def test_the_quaternions_sign_does_not_jump() -> None:
    """A tool that looks down and turns round twice: neighbours stay neighbours."""
    reader = StateReader()
    seen = np.array(
        [reader.read(feedback(theta=(180.0, 0.0, a)))[TOOL_QUATERNION] for a in np.arange(0, 720, 5.0)]
    )
    assert seen[0].max() > 0.5
    assert np.linalg.norm(np.diff(seen, axis=0), axis=1).max() < 0.1


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6).map(np.array))
def test_twists_for_the_arm(twist: np.ndarray) -> None:
    """m/s stay, rad/s become degrees per second."""
    sent = twist_to_arm(twist)
    np.testing.assert_allclose(sent[:3], twist[:3])
    np.testing.assert_allclose(np.deg2rad(sent[3:]), twist[3:])


@pytest.mark.parametrize(
    ("sub_code", "cause", "reconnects"),
    [
        (12, StopCause.NO_SESSION, True),
        (21, StopCause.NOT_READY, False),
        (22, StopCause.FAULT, False),
        (25, StopCause.EMERGENCY_STOP, False),
        (54, StopCause.NOT_IN_CONTROL, True),
        (75, StopCause.WRONG_MODE, False),
        (130, StopCause.NOT_IN_CONTROL, True),
        (131, StopCause.NO_ANSWER, True),
        (9999, StopCause.REFUSED, False),
    ],
)
def test_sub_codes_in_words(sub_code: int, cause: StopCause, reconnects: bool) -> None:
    """One line each, with what to do."""
    stop = stop_from_error(3, sub_code, "some\ntext")
    assert stop.cause is cause
    assert stop.needs_new_connection is reconnects
    assert "\n" not in stop.words
    assert "clear the faults" in stop.words or sub_code == 9999


def test_fault_banks_in_words() -> None:
    """Every bit says something, unknown ones by number; an emergency stop says to release it."""
    assert len(list(base_faults(0xFFFFFFFF, 1))) == 33
    assert list(base_faults(0, 0)) == []
    pressed = stop_from_feedback(4, 1 << 23, 0)
    assert pressed is not None
    assert pressed.cause is StopCause.EMERGENCY_STOP
    assert "release" in pressed.words
    collision = stop_from_feedback(4, 1 << 20, 0)
    assert collision is not None
    assert "protective stop" in collision.words
    assert stop_from_feedback(4, 0, 0) is not None


@pytest.mark.parametrize("state", [0, 2, 7, 8, 9])
def test_states_in_which_the_arm_takes_commands(state: int) -> None:
    """Manual control among them: it is what the arm reports while it follows our own twist."""
    assert stop_from_feedback(state, 0, 0) is None
