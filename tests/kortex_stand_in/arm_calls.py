"""What the simulated arm does with each call: its state, its refusals, its motion.

Where the real arm's behaviour is not known, the docstrings say what was chosen here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.gen3_kinematics import HOME
from tests.kortex_stand_in.arm_feedback import feedback, rotation_from_thetas
from tests.kortex_stand_in.arm_motion import ArmMotion, Command, Frame, nearest_turn
from tests.kortex_stand_in.kortex_api.stand_in.messages import message_class, names_of

ERRORS = names_of("")
BASE = names_of("Base")
FRAMES: dict[int, Frame] = {1: "mixed", 2: "tool", 3: "base"}
EMERGENCY_STOP, EMERGENCY_LINE = 0x800000, 0x1000000
FIRMWARE = 0x02030000  # 2.3.0
_STORED_ACTIONS = {
    "Home": HOME,
    "Retract": np.deg2rad([0.0, 340.0, 180.0, 214.0, 0.0, 310.0, 90.0]),
    "Zero": np.zeros(7),
}
_MOTION = ("SendTwistCommand", "SendJointSpeedsCommand", "SendGripperCommand", "ExecuteAction")
_NEEDS_CONTROL = (*_MOTION, "SetServoingMode", "Stop", "StopAction", "ClearFaults")


class Refused(Exception):
    """A call that the arm refuses, with the codes that go back."""

    def __init__(self, sub_code: str | int, code: str | int = "ERROR_DEVICE") -> None:
        """Codes by name or number."""
        self.code = ERRORS[code] if isinstance(code, str) else code
        self.sub_code = ERRORS[sub_code] if isinstance(sub_code, str) else sub_code
        super().__init__(f"{self.code}/{self.sub_code}")


@dataclass(frozen=True)
class ReceivedCommand:
    """One call that changes something, refused ones too.

    ``values`` are on the wire's terms: a twist is six numbers in m/s and deg/s (its frame in ``frame``), a
    gripper command its fingers' values, joint speeds deg/s, a servoing mode its number.
    """

    name: str
    values: tuple[float, ...]
    received_ns: int  # time.monotonic_ns
    session: int
    refused: int = 0  # the sub-code, where it was
    frame: int = 0  # a twist's reference frame


class ArmCalls:
    """The arm's side of the calls of ``Base``, ``BaseCyclic`` and ``DeviceConfig``. Not thread-safe."""

    def __init__(self) -> None:
        """An arm that is well and stands still."""
        self.motion = ArmMotion()
        self.wrench: np.ndarray = np.zeros(6)
        self.faults = 0  # bits of fault bank A
        self.stuck_faults = 0  # those that clearing does not clear
        self.ready = True
        self.low_level = False
        self.hand_guided = False
        self.denied: str | None = None  # the sub-code for commands while another client has control
        self.refusals: list[tuple[str | None, int, int]] = []  # call or any, code, sub-code
        self.owner = 0  # the session whose motion is in force
        self.commander = ""  # who last commanded something: address and port
        self.feedback_count = 0
        self.log: list[ReceivedCommand] = []
        self._do: dict[str, Callable[[Any], Any]] = {
            "SetServoingMode": self._set_servoing_mode,
            "SendTwistCommand": self._twist,
            "SendJointSpeedsCommand": self._joint_speeds,
            "SendGripperCommand": self._gripper,
            "ReadAllActions": self._stored_actions,
            "ExecuteAction": self._execute,
            "Stop": lambda message: self.motion.stop(),
            "StopAction": lambda message: self.motion.stop(),
            "ClearFaults": self._clear_faults,
            "ApplyEmergencyStop": lambda message: self.set_faults(EMERGENCY_STOP),
            "GetArmState": self._arm_state,
            "GetFirmwareVersion": self._firmware,
        }

    def answer(self, name: str, message: Any, session: int, caller: str = "") -> bytes:
        """Does what is called for and gives the reply's payload; raises :class:`Refused`.

        ``caller`` is the client's address and port.
        """
        if name == "RefreshFeedback":
            self.feedback_count += 1
            return feedback(self.motion, self.wrench, self.arm_state(), self.faults, self.feedback_count)
        logged = name not in ("ReadAllActions", "GetArmState", "GetFirmwareVersion")
        refused = 0
        try:
            self._refuse(name)
            reply = self._do[name](message)
        except Refused as refusal:
            refused = refusal.sub_code
            raise
        finally:
            if logged:
                self.log.append(_received(name, message, session, refused))
        if name in _NEEDS_CONTROL:
            self.commander = caller
        if name in _MOTION:
            self.owner = session
        return b"" if reply is None else reply.SerializeToString()

    def set_faults(self, bits: int, stuck: bool = False) -> None:
        """Stops the arm until the faults are cleared; stuck ones stay until they are let go."""
        self.motion.stop()
        self.faults |= bits
        self.stuck_faults |= bits if stuck else 0

    def arm_state(self) -> int:
        """The ``ArmState`` to report; with a twist in force manual control, as is said of the real arm."""
        if not self.ready:
            return int(BASE["ARMSTATE_INITIALIZATION"])
        if self.faults:
            return int(BASE["ARMSTATE_IN_FAULT"])
        if self.hand_guided or self.motion.in_force.twist is not None:
            return int(BASE["ARMSTATE_SERVOING_MANUALLY_CONTROLLED"])
        return int(BASE["ARMSTATE_SERVOING_LOW_LEVEL" if self.low_level else "ARMSTATE_SERVOING_READY"])

    def _refuse(self, name: str) -> None:
        for refusal in self.refusals:
            if refusal[0] in (None, name):
                self.refusals.remove(refusal)
                raise Refused(refusal[2], refusal[1])
        if name not in _NEEDS_CONTROL:
            return
        if self.denied is not None:
            raise Refused(self.denied)
        if name in (*_MOTION, "SetServoingMode"):
            if not self.ready:
                raise Refused("ROBOT_NOT_READY")
            if self.faults & (EMERGENCY_STOP | EMERGENCY_LINE):
                raise Refused("ROBOT_IN_EMERGENCY_STOP")
            if self.faults:
                raise Refused("ROBOT_IN_FAULT")
        if name in _MOTION and self.low_level:
            raise Refused("WRONG_SERVOING_MODE")

    def _set_servoing_mode(self, message: Any) -> None:
        if message.servoing_mode not in (2, 3):
            raise Refused("INVALID_PARAM")
        self.motion.stop()
        self.low_level = message.servoing_mode == 3

    def _twist(self, message: Any) -> None:
        """``duration`` is not implemented by the real arm and is ignored here."""
        if message.reference_frame not in FRAMES:
            raise Refused("INVALID_PARAM")
        values = np.array(_twist_values(message))
        values[3:] = np.deg2rad(values[3:])
        self.motion.command(Command(twist=values, frame=FRAMES[message.reference_frame]))

    def _joint_speeds(self, message: Any) -> None:
        speeds = np.zeros(7)
        for speed in message.joint_speeds:
            if speed.joint_identifier >= 7:
                raise Refused("INVALID_PARAM")
            speeds[speed.joint_identifier] = np.deg2rad(speed.value)
        self.motion.command(Command(joint_speeds=speeds))

    def _gripper(self, message: Any) -> None:
        if message.mode not in (2, 3) or not message.gripper.finger:
            raise Refused("INVALID_PARAM")
        value = message.gripper.finger[0].value
        if message.mode == BASE["GRIPPER_POSITION"]:
            self.motion.move_gripper(target=value)
        else:
            self.motion.move_gripper(speed=-value)  # on the wire a positive speed opens

    def _stored_actions(self, message: Any) -> Any:
        actions = message_class("Base", "ActionList")()
        kind = BASE["REACH_JOINT_ANGLES"]
        if message.action_type not in (0, kind):
            return actions
        for number, (name, joints) in enumerate(_STORED_ACTIONS.items(), start=1):
            action = actions.action_list.add(name=name)
            action.handle.identifier, action.handle.action_type = number, kind
            for joint, angle in enumerate(np.mod(np.rad2deg(joints), 360.0)):
                action.reach_joint_angles.joint_angles.joint_angles.add(joint_identifier=joint, value=angle)
        return actions

    def _execute(self, message: Any) -> None:
        kind = message.WhichOneof("action_parameters")
        if kind == "reach_joint_angles":
            goal = self.motion.joints.copy()
            for angle in message.reach_joint_angles.joint_angles.joint_angles:
                goal[angle.joint_identifier] = np.deg2rad(angle.value)
            self.motion.command(Command(joint_goal=nearest_turn(goal, self.motion.joints)))
        elif kind == "reach_pose":
            pose = message.reach_pose.target_pose
            goal = np.eye(4)
            goal[:3, :3] = rotation_from_thetas(np.array([pose.theta_x, pose.theta_y, pose.theta_z]))
            goal[:3, 3] = pose.x, pose.y, pose.z
            self.motion.command(Command(pose_goal=goal))
        else:
            raise Refused("UNIMPLEMENTED")

    def _clear_faults(self, message: Any) -> None:
        self.faults = self.stuck_faults

    def _arm_state(self, message: Any) -> Any:
        reply = message_class("Base", "ArmStateInformation")(active_state=self.arm_state())
        reply.connection.connection_information = self.commander
        return reply

    def _firmware(self, message: Any) -> Any:
        return message_class("DeviceConfig", "FirmwareVersion")(firmware_version=FIRMWARE)


def _twist_values(message: Any) -> tuple[float, ...]:
    t = message.twist
    return (t.linear_x, t.linear_y, t.linear_z, t.angular_x, t.angular_y, t.angular_z)


def _received(name: str, message: Any, session: int, refused: int) -> ReceivedCommand:
    values: tuple[float, ...] = ()
    if name == "SendTwistCommand":
        values = _twist_values(message)
    elif name == "SendGripperCommand":
        values = tuple(finger.value for finger in message.gripper.finger)
    elif name == "SendJointSpeedsCommand":
        values = tuple(speed.value for speed in message.joint_speeds)
    elif name == "SetServoingMode":
        values = (float(message.servoing_mode),)
    frame = message.reference_frame if name == "SendTwistCommand" else 0
    return ReceivedCommand(name, values, time.monotonic_ns(), session, refused, frame)
