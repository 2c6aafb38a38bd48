"""What the simulated arm says of itself, in the arm's units: degrees, 0..360, and percent.

Orientations are Kinova's: ``theta_x``, then ``theta_y``, then ``theta_z`` about the fixed axes of base,
so R = Rz · Ry · Rx. The tool is the project's, ``pipeline.gen3_kinematics.tool_pose``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.gen3_kinematics import jacobian, tool_pose
from tests.kortex_stand_in.arm_motion import ArmMotion
from tests.kortex_stand_in.kortex_api.stand_in.messages import message_class

_Feedback = message_class("BaseCyclic", "Feedback")


def theta_degrees(rotation: np.ndarray) -> np.ndarray:
    """``theta_x, theta_y, theta_z`` (3,) in degrees of a rotation matrix (3, 3), Kinova's convention."""
    r = rotation
    theta_y = np.arctan2(-r[2, 0], np.hypot(r[0, 0], r[1, 0]))
    return np.rad2deg([np.arctan2(r[2, 1], r[2, 2]), theta_y, np.arctan2(r[1, 0], r[0, 0])])


def rotation_from_thetas(thetas: np.ndarray) -> np.ndarray:
    """The inverse of :func:`theta_degrees`: a rotation matrix (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(thetas)), np.sin(np.deg2rad(thetas))
    return np.array(
        [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ]
    )


def feedback(motion: ArmMotion, wrench: np.ndarray, state: int, faults: int, frame_id: int) -> bytes:
    """A serialized ``Feedback``; ``wrench`` (6,) in N and N·m, ``faults`` are the bits of fault bank A."""
    message: Any = _Feedback(frame_id=frame_id)
    base = message.base
    base.active_state = state
    base.fault_bank_a = faults
    pose = tool_pose(motion.joints)
    twist = jacobian(motion.joints) @ motion.velocities
    thetas, turning = theta_degrees(pose[:3, :3]), np.rad2deg(twist[3:])
    for i, axis in enumerate("xyz"):
        setattr(base, f"tool_pose_{axis}", pose[i, 3])
        setattr(base, f"tool_pose_theta_{axis}", thetas[i])
        setattr(base, f"tool_twist_linear_{axis}", twist[i])
        setattr(base, f"tool_twist_angular_{axis}", turning[i])
        setattr(base, f"tool_external_wrench_force_{axis}", wrench[i])
        setattr(base, f"tool_external_wrench_torque_{axis}", wrench[3 + i])
    positions = np.mod(np.rad2deg(motion.joints), 360.0)
    for i, (position, velocity) in enumerate(zip(positions, np.rad2deg(motion.velocities), strict=True)):
        message.actuators.add(command_id=i << 16, position=position, velocity=velocity)
    motor = message.interconnect.gripper_feedback.motor.add(motor_id=1)
    motor.position = 100.0 * motion.gripper
    motor.velocity = 100.0 * abs(motion.gripper_speed) / 1.8
    return message.SerializeToString()
