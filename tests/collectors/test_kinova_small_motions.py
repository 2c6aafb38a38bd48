"""What must hold on a real Gen3, run on the stand-in by default: small motions only, 3 cm at 5 cm/s.

On an arm: ``RECAP_KORTEX_ADDRESS=192.168.1.10 pytest -m kortex`` and the path of this file. Somebody stands
by its emergency stop, the tool has 5 cm of room any way, and the gripper is empty.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from collectors.kinova_gen3 import KinovaGen3, KinovaGen3Config
from collectors.kinova_limits import MotionLimits
from pipeline.episode import action_to_dict, state_from_observation
from pipeline.gen3_kinematics import rotation_from_quaternion, tool_pose
from tests.kortex_stand_in.arm_fixture import ArmEndpoint, kortex_arm

__all__ = ["kortex_arm"]  # the fixture, by its name

SPEED = 0.05  # m/s
PERIOD_S = 0.05


@pytest.fixture
def robot(kortex_arm: ArmEndpoint) -> Iterator[KinovaGen3]:
    """A connected arm, the workspace box out of the way: motions here are small wherever it stands."""
    config = KinovaGen3Config(
        ip=kortex_arm.address,
        tcp_port=kortex_arm.tcp_port,
        udp_port=kortex_arm.udp_port,
        username=kortex_arm.username,
        password=kortex_arm.password,
        limits=MotionLimits(linear_speed=SPEED, box_low=(-1, -1, 0.05), box_high=(1, 1, 1.2)),
    )
    robot = KinovaGen3(config)
    robot.connect()
    yield robot
    robot.disconnect()


def position(robot: KinovaGen3) -> np.ndarray:
    """The tool's position (3,) in base, m."""
    return state_from_observation(robot.get_observation())["tool_pose"][:3].astype(float)


def drive(robot: KinovaGen3, action: np.ndarray, seconds: float) -> None:
    """Sends an action (7,) twenty times a second."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        robot.send_action(action_to_dict(action))
        time.sleep(PERIOD_S)


def test_feedback_is_fresh_and_makes_sense(robot: KinovaGen3) -> None:
    state = state_from_observation(robot.get_observation())
    assert np.abs(state["joint_velocities"]).max() < 0.02, "the arm moves, and nobody told it to"
    assert np.linalg.norm(state["tool_pose"][:3]) < 1.4
    assert 0 <= state["gripper_position"][0] <= 1
    # Our kinematics and the arm's agree but for the tool that is set in the arm's own configuration.
    ours = tool_pose(state["joint_positions"].astype(float))
    turned = rotation_from_quaternion(state["tool_pose"][3:])
    np.testing.assert_allclose(turned[:, 2], ours[:3, 2], atol=0.05)
    assert np.linalg.norm(ours[:3, 3] - state["tool_pose"][:3]) < 0.20


def test_up_and_down_again(robot: KinovaGen3) -> None:
    hold = np.zeros(7)
    hold[6] = robot.get_observation()["gripper.pos"]
    start = position(robot)
    up = hold.copy()
    up[2] = SPEED
    drive(robot, up, 0.6)
    drive(robot, hold, 0.3)
    risen = position(robot) - start
    assert 0.015 < risen[2] < 0.045 and np.abs(risen[:2]).max() < 0.005
    drive(robot, -up * [1, 1, 1, 1, 1, 1, 0] + hold, 0.6)
    drive(robot, hold, 0.3)
    assert np.abs(position(robot) - start).max() < 0.02


def test_arm_stops_when_commands_stop_coming(robot: KinovaGen3) -> None:
    hold = np.zeros(7)
    hold[6] = robot.get_observation()["gripper.pos"]
    up = hold.copy()
    up[2] = SPEED
    drive(robot, up, 0.4)
    time.sleep(0.7)  # a hung program: nothing is sent
    stopped_at = position(robot)
    time.sleep(0.3)
    assert np.abs(position(robot) - stopped_at).max() < 1e-3
    drive(robot, hold - np.array([0, 0, SPEED, 0, 0, 0, 0]), 0.4)
    drive(robot, hold, 0.2)
