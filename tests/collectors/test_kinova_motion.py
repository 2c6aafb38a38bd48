"""How the arm moves under the limits, and what is observed of it: seen at the simulated arm itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from collectors.arm_interface import StoppableArm, capture_times_ns, condition_of, lost_cameras
from collectors.config_simulated_camera import SimulatedCameraConfig
from collectors.kinova_gen3 import KinovaGen3
from collectors.kinova_limits import MotionLimits
from pipeline.episode import STATE_NAMES, action_to_dict, state_from_observation
from pipeline.gen3_kinematics import HOME, JOINT_LIMITS, READY, rotation_from_quaternion, tool_pose
from tests.collectors.kinova_arms import FORWARD, connected, drive, driving, relentless_arm
from tests.kortex_stand_in.arm_fixture import CLIENTS
from tests.kortex_stand_in.simulated_arm import SimulatedArm


@pytest.fixture(params=CLIENTS)
def arm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedArm]:
    """A simulated arm in its ready pose, the tool at x 0.45, y 0, z 0.26 m."""
    with relentless_arm(request.param, monkeypatch) as arm:
        yield arm


def box_around(arm: SimulatedArm, room: float) -> MotionLimits:
    """Limits with walls ``room`` m away from the tool."""
    here = arm.tool_position()
    return MotionLimits(box_low=tuple(here - room), box_high=tuple(here + room))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_box_holds_the_arm(arm: SimulatedArm, axis: int, sign: float) -> None:
    """Driven at a wall, it slows, stays inside and says which wall; the way along and back is free."""
    limits = box_around(arm, 0.02)
    wall = (limits.box_high if sign > 0 else limits.box_low)[axis]
    outwards = np.zeros(7)
    outwards[axis] = sign * 0.1
    with connected(arm, limits=limits) as robot:
        drive(robot, outwards, 1.0)
        sent = drive(robot, outwards, 0.2)
        assert any(f"workspace: held at {'xyz'[axis]}" in words for words in robot.condition.limits)
        position = arm.tool_position()
        assert abs(position[axis] - wall) < 0.003
        assert (position[axis] - wall) * sign < 0.0005
        assert np.linalg.norm(arm.twist_now()[:3]) < 0.01
        assert abs(list(sent.values())[axis]) < 0.02
        drive(robot, -outwards, 0.3)
        assert abs(arm.tool_position()[axis] - wall) > 0.005


def test_a_tool_outside_the_box_may_only_come_in(arm: SimulatedArm) -> None:
    """It was put there by hand: it is not pulled in, not let further out."""
    limits = MotionLimits(box_low=(0.5, -0.5, 0.02), box_high=(0.7, 0.5, 0.6))
    start = arm.tool_position()
    with connected(arm, limits=limits) as robot:
        drive(robot, -FORWARD, 0.3)
        np.testing.assert_allclose(arm.tool_position(), start, atol=1e-4)
        drive(robot, FORWARD, 0.5)
        assert arm.tool_position()[0] > start[0] + 0.008


@pytest.mark.parametrize(("joint", "side"), [(5, -1.0), (3, -1.0)])
def test_a_joint_stays_off_its_limit(arm: SimulatedArm, joint: int, side: float) -> None:
    """Turned towards its limit, it slows and holds, and says which joint."""
    margin = 0.1
    joints = READY.copy()
    joints[joint] = side * (JOINT_LIMITS[joint] - margin - 0.1)
    arm.set_joint_positions(joints)
    limits = MotionLimits(joint_margin=margin, box_low=(-1, -1, -1), box_high=(1, 1, 2), linear_speed=0.5)
    from pipeline.gen3_kinematics import jacobian

    with connected(arm, limits=limits) as robot:
        said: set[str] = set()
        for _ in range(30):
            now = arm.joint_positions()
            twist = jacobian(now)[:, joint] * side * 0.4
            robot.send_action(action_to_dict(np.array([*twist, 0.0])))
            said.update(robot.condition.limits)
            time.sleep(0.05)
        assert abs(arm.joint_positions()[joint]) < JOINT_LIMITS[joint] - margin + 0.02
        assert any(words.startswith(f"joint {joint + 1}:") for words in said), said


def test_no_faster_than_allowed(arm: SimulatedArm) -> None:
    """Ten times too fast is asked for: the limit is on the wire, in the answer and in words."""
    with connected(arm) as robot, driving(robot, arm, np.array([2.5, 2.5, 0, 0, 0, 9.0, 0])):
        assert arm.wait_for(lambda: len(arm.received("SendTwistCommand")) > 3)
        assert any("speed" in words for words in robot.condition.limits)
    for command in arm.received("SendTwistCommand"):
        assert np.linalg.norm(command.values[:3]) <= 0.25 + 1e-6
        assert np.linalg.norm(np.deg2rad(command.values[3:])) <= 1.0 + 1e-6


def test_the_gripper_moves_at_its_limit(arm: SimulatedArm) -> None:
    """Half a stroke a second, in small steps; commands that repeat are not sent again."""
    with connected(arm, limits=MotionLimits(gripper_speed=0.5)) as robot:
        drive(robot, np.array([0, 0, 0, 0, 0, 0, 0.5]), 1.6)
        sent = arm.received("SendGripperCommand")
        assert sent[-1].values[0] == pytest.approx(0.5, abs=1e-6)
        elapsed = (sent[-1].received_ns - sent[0].received_ns) / 1e9
        assert elapsed > 0.7
        assert len(sent) < 30
        assert arm.wait_for(lambda: abs(arm.gripper_position() - 0.5) < 0.02)


def test_what_is_observed_is_where_the_arm_is(arm: SimulatedArm) -> None:
    """Units and frames, against the simulated arm's own joints."""
    arm.set_gripper(0.3)
    arm.set_wrench(np.array([1.0, 2.0, 3.0, 0.1, 0.2, 0.3]))
    with connected(arm) as robot:
        drive(robot, np.array([0.03, 0.02, 0.0, 0.1, 0.0, 0.2, 0.3]), 0.5)
        robot.disconnect()
        joints = arm.joint_positions()
        robot.connect()
        state = state_from_observation(robot.get_observation())
    np.testing.assert_allclose(state["joint_positions"], joints, atol=1e-3)
    np.testing.assert_allclose(state["tool_pose"][:3], tool_pose(joints)[:3, 3], atol=1e-3)
    np.testing.assert_allclose(
        rotation_from_quaternion(state["tool_pose"][3:]), tool_pose(joints)[:3, :3], atol=2e-3
    )
    np.testing.assert_allclose(state["gripper_position"], 0.3, atol=0.02)
    np.testing.assert_allclose(state["tool_wrench"], [1.0, 2.0, 3.0, 0.1, 0.2, 0.3], atol=1e-5)


def test_angles_do_not_jump_at_360_degrees(arm: SimulatedArm) -> None:
    """A whole turn of the last joint, as the arm wraps it and we do not."""
    joints = READY.copy()
    joints[6] = np.deg2rad(340.0)
    arm.set_joint_positions(joints)
    seen = []
    with connected(arm) as robot:
        for _ in range(16):
            drive(robot, np.array([0, 0, 0, 0, 0, -1.0, 0]), 0.05)
            seen.append(robot.get_observation()["joint_7.pos"])
            assert np.isclose(np.angle(np.exp(1j * (seen[-1] - arm.joint_positions()[6]))), 0, atol=0.3)
    assert abs(seen[-1] - seen[0]) > 0.3
    assert np.abs(np.diff(seen)).max() < 0.5


def test_home(arm: SimulatedArm) -> None:
    """On request, and only there and back; commands meanwhile do not disturb it."""
    start = HOME.copy()
    start[0] += 0.3
    arm.set_joint_positions(start)
    with connected(arm) as robot:
        robot.home()
        difference = np.angle(np.exp(1j * (arm.joint_positions() - HOME)))
        np.testing.assert_allclose(difference, 0, atol=0.01)
        assert arm.wait_until_still()


def test_it_is_an_arm_of_ours(arm: SimulatedArm) -> None:
    """The optional interface is there; images come with their own times."""
    cameras = {"table": SimulatedCameraConfig(width=64, height=48, fps=30)}
    with connected(arm, cameras=cameras) as robot:
        assert isinstance(robot, StoppableArm)
        assert condition_of(robot).stopped is None
        before = time.time_ns()
        observation = robot.get_observation()
        taken = capture_times_ns(robot, 0, ("table",))["table"]
        assert before - 2e9 < taken <= time.time_ns()
        assert observation["table"].shape == (48, 64, 3)
        assert lost_cameras(robot) == {}
        assert tuple(observation)[: len(STATE_NAMES)] == STATE_NAMES
    assert condition_of(robot).stopped == "not connected"


def test_rates_and_the_drivers_share_of_a_core(arm: SimulatedArm) -> None:
    """Feedback at 100 Hz and more, and well under a core; both loosely, as the machine has other work."""
    with connected(arm) as robot:
        driver = psutil.Process(robot.driver_pid)
        cpu, count, started = sum(driver.cpu_times()[:2]), arm.feedback_count, time.monotonic()
        drive(robot, FORWARD, 1.5)
        elapsed = time.monotonic() - started
        assert (arm.feedback_count - count) / elapsed > 50
        assert (sum(driver.cpu_times()[:2]) - cpu) / elapsed < 0.6


def test_observing_does_not_wait(robot_of_arm: KinovaGen3) -> None:
    """The newest state is given at once."""
    started = time.monotonic()
    for _ in range(50):
        robot_of_arm.get_observation()
    assert time.monotonic() - started < 2.0


@pytest.fixture
def robot_of_arm(arm: SimulatedArm) -> Iterator[KinovaGen3]:
    """A robot connected to the arm."""
    with connected(arm) as robot:
        yield robot
