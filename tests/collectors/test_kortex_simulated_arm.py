"""The simulated arm that the stand-in for ``kortex_api`` talks to: units, motion, faults, refusals."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.gen3_kinematics import JOINT_LIMITS, READY, tool_pose
from tests.kortex_stand_in.arm_feedback import rotation_from_thetas
from tests.kortex_stand_in.in_process_client import BASE, Client, gripper, twist
from tests.kortex_stand_in.kortex_api.autogen.client_stubs.DeviceConfigClientRpc import DeviceConfigClient
from tests.kortex_stand_in.kortex_api.Exceptions.KServerException import KServerException
from tests.kortex_stand_in.kortex_api.stand_in.messages import message_class
from tests.kortex_stand_in.simulated_arm import SimulatedArm


@pytest.fixture
def arm() -> Iterator[SimulatedArm]:
    with SimulatedArm() as arm:
        yield arm


@pytest.fixture
def client(arm: SimulatedArm) -> Iterator[Client]:
    client = Client(arm)
    yield client
    client.stop_keep_alive()
    client.transport.disconnect()


def refused(call: Any, *arguments: Any) -> int:
    with pytest.raises(KServerException) as caught:
        call(*arguments)
    return caught.value.get_error_sub_code()


def test_feedback_is_in_degrees_0_to_360_and_percent(arm: SimulatedArm, client: Client) -> None:
    joints = np.array([-0.5, 0.4, 2 * np.pi + 3.0, -1.5, 0.1, -1.2, 1.5])
    arm.set_joint_positions(joints)
    arm.set_gripper(0.25)
    said = client.cyclic.RefreshFeedback()
    positions = np.array([actuator.position for actuator in said.actuators])
    assert np.all((positions >= 0) & (positions <= 360))
    np.testing.assert_allclose(positions, np.rad2deg(joints) % 360, atol=1e-3)
    assert said.interconnect.gripper_feedback.motor[0].position == pytest.approx(25)
    pose = tool_pose(joints)
    base = said.base
    np.testing.assert_allclose([base.tool_pose_x, base.tool_pose_y, base.tool_pose_z], pose[:3, 3], atol=1e-5)
    thetas = np.array([base.tool_pose_theta_x, base.tool_pose_theta_y, base.tool_pose_theta_z])
    np.testing.assert_allclose(rotation_from_thetas(thetas), pose[:3, :3], atol=1e-5)
    assert base.active_state == BASE["ARMSTATE_SERVOING_READY"]


@pytest.mark.parametrize("frame", ["BASE", "TOOL", "MIXED"])
def test_twist_turns_in_degrees_and_in_its_frame(arm: SimulatedArm, client: Client, frame: str) -> None:
    client.base.SendTwistCommand(twist(0.05, 0, 0, 0, 0, 20.0, frame=frame))
    assert arm.wait_for(lambda: bool(arm.twist_now().any()))
    # READY looks straight down with its x along base's y: z of the tool is minus z of base.
    linear = [0, 0.05, 0] if frame == "TOOL" else [0.05, 0, 0]
    turning = np.deg2rad(20.0) * (1 if frame == "BASE" else -1)
    np.testing.assert_allclose(arm.twist_now(), [*linear, 0, 0, turning], atol=0.02)
    assert arm.wait_until_moving()


def test_twist_stays_in_force_whatever_its_duration(arm: SimulatedArm, client: Client) -> None:
    command = twist(0.02)
    command.duration = 1
    start = arm.tool_position()
    client.base.SendTwistCommand(command)
    assert arm.wait_for(lambda: float(arm.tool_position()[0] - start[0]) > 0.022)  # more than a second of it
    client.base.SendTwistCommand(twist())
    assert arm.wait_until_still()


def test_commands_are_taken_at_40_hz(arm: SimulatedArm, client: Client) -> None:
    seen: set[float] = set()
    began = time.monotonic()
    sent = 0
    while time.monotonic() < began + 0.5 or len(seen) < 2:
        sent += 1
        client.base.SendTwistCommand(twist(sent * 1e-4))
        seen.add(round(float(arm.twist_now()[0]), 6))
    assert 2 <= len(seen) <= (time.monotonic() - began) * 40 + 3


def test_gripper_closes_at_a_finite_speed_and_positive_speed_opens(arm: SimulatedArm, client: Client) -> None:
    client.base.SendGripperCommand(gripper("GRIPPER_POSITION", 1.0))
    assert arm.wait_for(lambda: 0 < arm.gripper_position() < 1)
    assert arm.wait_for(lambda: arm.gripper_position() == 1)
    client.base.SendGripperCommand(gripper("GRIPPER_SPEED", 1.0))
    assert arm.wait_for(lambda: arm.gripper_position() < 0.5)


def test_joints_stop_at_their_limits(arm: SimulatedArm, client: Client) -> None:
    near = READY.copy()
    near[5] = -JOINT_LIMITS[5] + 0.05
    arm.set_joint_positions(near)
    speeds = message_class("Base", "JointSpeeds")()
    for joint in range(7):
        speeds.joint_speeds.add(joint_identifier=joint, value=-60.0 if joint == 5 else 0.0)
    client.base.SendJointSpeedsCommand(speeds)
    assert arm.wait_for(lambda: bool(arm.joint_positions()[5] == -JOINT_LIMITS[5]))
    assert not arm.is_moving()


def test_faults_stop_the_arm_until_cleared(arm: SimulatedArm, client: Client) -> None:
    client.base.SendTwistCommand(twist(0.01))
    assert arm.wait_until_moving()
    arm.raise_fault("JOINT_FAULT", stuck=True)
    assert arm.wait_until_still()
    assert client.cyclic.RefreshFeedback().base.fault_bank_a == BASE["JOINT_FAULT"]
    assert client.base.GetArmState().active_state == BASE["ARMSTATE_IN_FAULT"]
    client.base.ClearFaults()
    assert refused(client.base.SendTwistCommand, twist(0.01)) == 22
    arm.emergency_stop_released()
    client.base.ClearFaults()
    client.base.SendTwistCommand(twist(0.01))
    client.base.ApplyEmergencyStop()
    assert arm.wait_until_still()
    assert refused(client.base.SendTwistCommand, twist(0.01)) == 25
    arm.emergency_stop_pressed()
    client.base.ClearFaults()
    assert refused(client.base.SendGripperCommand, gripper("GRIPPER_POSITION", 0)) == 25


def test_other_refusals_have_their_sub_codes(arm: SimulatedArm, client: Client) -> None:
    arm.set_ready(False)
    assert refused(client.base.SendTwistCommand, twist()) == 21
    arm.set_ready(True)
    arm.second_client_connects()
    assert refused(client.base.SendTwistCommand, twist()) == 54
    arm.take_control_from_client()
    assert refused(client.base.SendTwistCommand, twist()) == 130
    arm.give_control_back()
    client.base.SetServoingMode(message_class("Base", "ServoingModeInformation")(servoing_mode=3))
    assert refused(client.base.SendTwistCommand, twist()) == 75
    arm.reject_next(sub_code="METHOD_TIMEOUT", call="Stop")
    client.base.SetServoingMode(message_class("Base", "ServoingModeInformation")(servoing_mode=2))
    assert refused(client.base.Stop) == 131
    client.base.Stop()
    assert [command.refused for command in arm.received("SendTwistCommand")] == [21, 54, 130, 75]


def test_actions_end_with_a_notification(arm: SimulatedArm, client: Client) -> None:
    events: list[int] = []
    handle = client.base.OnNotificationActionTopic(
        lambda notification: events.append(notification.action_event),
        message_class("Common", "NotificationOptions")(),
    )
    wanted = message_class("Base", "RequestedActionType")(action_type=BASE["REACH_JOINT_ANGLES"])
    stored = client.base.ReadAllActions(wanted).action_list
    assert [action.name for action in stored] == ["Home", "Retract", "Zero"]
    reach = message_class("Base", "Action")()
    pose = reach.reach_pose.target_pose
    goal = arm.tool_position() + np.array([0.03, 0.0, 0.02])
    pose.x, pose.y, pose.z, pose.theta_x, pose.theta_y, pose.theta_z = *map(float, goal), 180.0, 0.0, 90.0
    client.base.ExecuteAction(reach)
    assert arm.wait_for(lambda: BASE["ACTION_END"] in events)
    np.testing.assert_allclose(arm.tool_position(), goal, atol=2e-3)
    client.base.ExecuteAction(stored[0])
    client.base.StopAction()
    assert arm.wait_for(lambda: BASE["ACTION_ABORT"] in events)
    assert arm.wait_until_still()
    client.base.Unsubscribe(handle)


def test_firmware_is_told(client: Client) -> None:
    assert DeviceConfigClient(client.router).GetFirmwareVersion().firmware_version > 0


def test_wire_is_the_documented_one_byte_for_byte(arm: SimulatedArm) -> None:
    """By hand, without the stand-in's own packing: what the vendor's client would send, and gets back."""
    log_in = b"\x0a\x05admin" + b"\x10\x90\x4e" + b"\x1a\x05admin" + b"\x20\xd0\x0f"  # 10000 and 2000 ms
    header = struct.pack("<BIBIBIBI", 0x0D, 0x11000000, 0x15, 7, 0x1D, 0x10010001, 0x25, len(log_in))
    frame = b"\x0a" + bytes([len(header)]) + header + b"\x12" + bytes([len(log_in)]) + log_in
    with socket.create_connection((arm.address, arm.tcp_port), timeout=20) as connection:
        connection.sendall(b"\x07xEtRoK\x07" + struct.pack(">I", len(frame)) + frame)
        reply = connection.recv(4096)
    assert reply[:8] == b"\x07xEtRoK\x07" and struct.unpack(">I", reply[8:12])[0] == len(reply) - 12
    assert reply[12] == 0x0A
    fields = struct.unpack_from("<BIBIBI", reply, 14)
    assert fields[1] == 0x13000000  # header version 1, a response, no error
    assert fields[3] >> 16 != 0 and fields[3] & 0xFFFF == 7  # a session, and the message's own number
    assert fields[5] == 0x10010001  # the service and function that were called
    assert [command.name for command in arm.log] == ["CreateSession"]


def test_arm_serves_alone_from_the_command_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.kortex_stand_in.simulated_arm",
        "--tcp-port",
        "0",
        "--udp-port",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        tcp_port, udp_port = map(int, re.findall(r"_port = (\d+)", said))
        outside = SimulatedArm(tcp_port=tcp_port, udp_port=udp_port)  # not entered: an address, no arm
        client = Client(outside)
        assert len(client.cyclic.RefreshFeedback().actuators) == 7
        client.session.CloseSession()
        client.transport.disconnect()
    finally:
        process.terminate()
        process.wait(20)
