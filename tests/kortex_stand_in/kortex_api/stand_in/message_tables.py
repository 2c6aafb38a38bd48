"""The messages and enumerations that the stand-in speaks, by their published names and field numbers.

Only what a Gen3 driver uses; the arm's protocol has many more. One line a message: ``field:type=number``,
``*`` before a repeated field, ``|`` before one of the message's oneof. Types: protobuf's own, a message or
enumeration of the same package, or one of another package as ``Package.Name``.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Package:
    """One ``.proto`` file: its package, what it imports publicly, its messages and enumerations."""

    name: str  # below Kinova.Api; empty for Kinova.Api itself
    imports: tuple[str, ...] = ()
    messages: dict[str, str] = field(default_factory=dict)
    enums: dict[str, str] = field(default_factory=dict)
    oneof: str = ""


ERRORS = Package(
    "",
    messages={
        "Error": "error_code:ErrorCodes=1 error_sub_code:uint32=2 error_sub_string:string=3",
        "Header": "frame_info:fixed32=1 message_info:fixed32=2 service_info:fixed32=3 payload_info:fixed32=4",
        "Frame": "header:Header=1 payload:bytes=2",
    },
    enums={
        "ErrorCodes": "ERROR_NONE=0 ERROR_PROTOCOL_SERVER=1 ERROR_PROTOCOL_CLIENT=2 ERROR_DEVICE=3 "
        "ERROR_INTERNAL=4",
        "SubErrorCodes": "SUB_ERROR_NONE=0 METHOD_FAILED=1 UNIMPLEMENTED=2 INVALID_PARAM=3 "
        "UNSUPPORTED_SERVICE=4 UNSUPPORTED_METHOD=5 INVALID_SESSION=12 PAYLOAD_DECODING_ERR=13 "
        "UNREGISTERED_FRAME_RECEIVED=14 INVALID_PASSWORD=15 USER_NOT_FOUND=16 ROBOT_NOT_READY=21 "
        "ROBOT_IN_FAULT=22 ROBOT_IN_EMERGENCY_STOP=25 INVALID_USER_SESSION_ACCESS=54 "
        "WRONG_SERVOING_MODE=75 SESSION_NOT_IN_CONTROL=130 METHOD_TIMEOUT=131",
    },
)
COMMON = Package(
    "Common",
    messages={
        "Empty": "",
        "NotificationOptions": "type:NotificationType=1 rate_m_sec:uint32=2 threshold_value:float=3",
        "NotificationHandle": "identifier:uint32=1",
        "Timestamp": "sec:uint32=1 usec:uint32=2",
        "UserProfileHandle": "identifier:uint32=1 permission:fixed32=2",
        "Connection": "user_handle:UserProfileHandle=1 connection_information:string=2 "
        "connection_identifier:uint32=3",
    },
    enums={
        "NotificationType": "NOTIFICATION_TYPE_UNSPECIFIED=0 NOTIFICATION_TYPE_THRESHOLD=1 "
        "NOTIFICATION_TYPE_FIX_RATE=2 NOTIFICATION_TYPE_EVENT=3",
        "ArmState": "ARMSTATE_UNSPECIFIED=0 ARMSTATE_BASE_INITIALIZATION=1 ARMSTATE_IDLE=2 "
        "ARMSTATE_INITIALIZATION=3 ARMSTATE_IN_FAULT=4 ARMSTATE_MAINTENANCE=5 "
        "ARMSTATE_SERVOING_LOW_LEVEL=6 ARMSTATE_SERVOING_READY=7 ARMSTATE_SERVOING_PLAYING_SEQUENCE=8 "
        "ARMSTATE_SERVOING_MANUALLY_CONTROLLED=9 ARMSTATE_RESERVED=255",
        "CartesianReferenceFrame": "CARTESIAN_REFERENCE_FRAME_UNSPECIFIED=0 "
        "CARTESIAN_REFERENCE_FRAME_MIXED=1 CARTESIAN_REFERENCE_FRAME_TOOL=2 "
        "CARTESIAN_REFERENCE_FRAME_BASE=3",
    },
)
SESSION = Package(
    "Session",
    imports=("Common",),
    messages={
        "CreateSessionInfo": "username:string=1 session_inactivity_timeout:uint32=2 password:string=3 "
        "connection_inactivity_timeout:uint32=4",
    },
)
BASE = Package(
    "Base",
    imports=("Common", ""),
    oneof="action_parameters",
    messages={
        "ServoingModeInformation": "servoing_mode:ServoingMode=1",
        "Twist": "linear_x:float=1 linear_y:float=2 linear_z:float=3 "
        "angular_x:float=4 angular_y:float=5 angular_z:float=6",
        "TwistCommand": "reference_frame:Common.CartesianReferenceFrame=1 twist:Twist=2 duration:uint32=3",
        "JointSpeed": "joint_identifier:uint32=1 value:float=2 duration:uint32=3",
        "JointSpeeds": "*joint_speeds:JointSpeed=1 duration:uint32=2",
        "Finger": "finger_identifier:uint32=1 value:float=2",
        "Gripper": "*finger:Finger=1",
        "GripperCommand": "mode:GripperMode=1 gripper:Gripper=2 duration:uint32=3",
        "Pose": "x:float=1 y:float=2 z:float=3 theta_x:float=4 theta_y:float=5 theta_z:float=6",
        "ConstrainedPose": "target_pose:Pose=1",
        "JointAngle": "joint_identifier:uint32=1 value:float=2",
        "JointAngles": "*joint_angles:JointAngle=1",
        "ConstrainedJointAngles": "joint_angles:JointAngles=1",
        "ActionHandle": "identifier:uint32=1 action_type:ActionType=2 permission:fixed32=3",
        "RequestedActionType": "action_type:ActionType=1",
        "Action": "handle:ActionHandle=1 name:string=2 application_data:string=3 "
        "|reach_pose:ConstrainedPose=9 |reach_joint_angles:ConstrainedJointAngles=10",
        "ActionList": "*action_list:Action=1",
        "ActionNotification": "action_event:ActionEvent=1 handle:ActionHandle=2 timestamp:Common.Timestamp=3 "
        "user_handle:Common.UserProfileHandle=4 abort_details:.SubErrorCodes=5 "
        "connection:Common.Connection=6",
        "ArmStateInformation": "active_state:Common.ArmState=1 connection:Common.Connection=2",
    },
    enums={
        "ServoingMode": "UNSPECIFIED_SERVOING_MODE=0 SINGLE_LEVEL_SERVOING=2 LOW_LEVEL_SERVOING=3",
        "GripperMode": "UNSPECIFIED_GRIPPER_MODE=0 GRIPPER_FORCE=1 GRIPPER_SPEED=2 GRIPPER_POSITION=3",
        "ActionType": "UNSPECIFIED_ACTION=0 REACH_POSE=6 REACH_JOINT_ANGLES=7",
        "ActionEvent": "UNSPECIFIED_ACTION_EVENT=0 ACTION_END=1 ACTION_ABORT=2 ACTION_PAUSE=3 ACTION_START=4",
        "SafetyIdentifier": "UNSPECIFIED_BASE_SAFETY_IDENTIFIER=0 MAXIMUM_AMBIENT_TEMPERATURE=4 "
        "MAXIMUM_CORE_TEMPERATURE=8 JOINT_FAULT=16 UNABLE_TO_REACH_POSE=1024 MAXIMUM_CURRENT=8192 "
        "MAXIMUM_VOLTAGE=16384 MINIMUM_VOLTAGE=32768 MAXIMUM_END_EFFECTOR_TRANSLATION_FORCE=1048576 "
        "MAXIMUM_END_EFFECTOR_ORIENTATION_FORCE=2097152 EMERGENCY_STOP_ACTIVATED=8388608 "
        "EMERGENCY_LINE_ACTIVATED=16777216",
    },
)
_BANKS = "fault_bank_a:fixed32={} fault_bank_b:fixed32={} warning_bank_a:fixed32={} warning_bank_b:fixed32={}"
GRIPPER_CYCLIC = Package(
    "GripperCyclic",
    messages={
        "MotorFeedback": "motor_id:fixed32=1 position:float=4 velocity:float=5 current_motor:float=7 "
        "voltage:float=8 temperature_motor:float=10",
        "Feedback": f"status_flags:fixed32=2 {_BANKS.format(3, 4, 5, 6)} *motor:MotorFeedback=7",
    },
)
INTERCONNECT_CYCLIC = Package(
    "InterconnectCyclic",
    imports=("GripperCyclic",),
    oneof="tool_feedback",
    messages={"Feedback": f"{_BANKS.format(12, 13, 14, 15)} |gripper_feedback:GripperCyclic.Feedback=18"},
)


def _vector(prefix: str, start: int) -> str:
    """Six fields, linear then angular, numbered from ``start``."""
    return " ".join(f"{prefix.format(axis)}:float={start + i}" for i, axis in enumerate("xyz"))


BASE_CYCLIC = Package(
    "BaseCyclic",
    imports=("Common", "InterconnectCyclic"),
    messages={
        "ActuatorFeedback": "command_id:fixed32=1 status_flags:fixed32=2 jitter_comm:fixed32=3 "
        "position:float=4 velocity:float=5 torque:float=6 current_motor:float=7 voltage:float=8 "
        f"temperature_motor:float=9 temperature_core:float=10 {_BANKS.format(11, 12, 13, 14)}",
        "BaseFeedback": "active_state_connection_identifier:uint32=1 active_state:Common.ArmState=2 "
        "arm_voltage:float=3 arm_current:float=4 temperature_cpu:float=5 temperature_ambient:float=6 "
        + " ".join(
            [
                _vector("tool_pose_{}", 13),
                _vector("tool_pose_theta_{}", 16),
                _vector("tool_twist_linear_{}", 19),
                _vector("tool_twist_angular_{}", 22),
                _vector("tool_external_wrench_force_{}", 25),
                _vector("tool_external_wrench_torque_{}", 28),
                _BANKS.format(31, 32, 33, 34),
                _vector("commanded_tool_pose_{}", 35),
                _vector("commanded_tool_pose_theta_{}", 38),
            ]
        ),
        "Feedback": "frame_id:fixed32=1 base:BaseFeedback=2 *actuators:ActuatorFeedback=3 "
        "interconnect:InterconnectCyclic.Feedback=4",
    },
)
DEVICE_CONFIG = Package(
    "DeviceConfig", imports=("Common",), messages={"FirmwareVersion": "firmware_version:uint32=1"}
)
EMPTY_PACKAGES = tuple(
    Package(name, imports=("Common",)) for name in ("ActuatorConfig", "DeviceManager", "VisionConfig")
)
PACKAGES = (
    ERRORS,
    COMMON,
    SESSION,
    BASE,
    GRIPPER_CYCLIC,
    INTERCONNECT_CYCLIC,
    BASE_CYCLIC,
    DEVICE_CONFIG,
    *EMPTY_PACKAGES,
)
"""Every package, each after those it imports."""
