"""The episode schema: every field's name, shape, dtype, unit and frame of reference.

An *episode* is one attempt at a task, a *frame* is one control step of it. Everything that records,
stores, caches, exports or learns from episodes takes its field names and shapes from here.

Frames of reference: *base* is the robot's base link (x forward, y left, z up); *tool* is the tool
centre point between the finger tips. Quaternions are ``w x y z`` and unit length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np

SCHEMA_VERSION = 1


class Source(IntEnum):
    """Who chose the action of a frame."""

    TELEOP = 0
    POLICY = 1
    INTERVENTION = 2


class Outcome(StrEnum):
    """What a person said of a whole episode. An unlabelled episode has none: it is never a failure."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True)
class Field:
    """One numeric array of an episode; ``shape`` is per frame."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    unit: str
    frame: str
    description: str
    component_names: tuple[str, ...] = ()


JOINT_COUNT = 7

STATE_FIELDS: tuple[Field, ...] = (
    Field(
        "joint_positions",
        (7,),
        "float32",
        "rad",
        "joint",
        "unwrapped joint angles, joint 1 first",
        tuple(f"joint_{i}.pos" for i in range(1, 8)),
    ),
    Field(
        "joint_velocities",
        (7,),
        "float32",
        "rad/s",
        "joint",
        "joint velocities, joint 1 first",
        tuple(f"joint_{i}.vel" for i in range(1, 8)),
    ),
    Field(
        "tool_pose",
        (7,),
        "float32",
        "m, quaternion",
        "base",
        "tool position x y z, then orientation w x y z",
        ("tool.x", "tool.y", "tool.z", "tool.qw", "tool.qx", "tool.qy", "tool.qz"),
    ),
    Field(
        "gripper_position",
        (1,),
        "float32",
        "1",
        "gripper",
        "0 fully open, 1 fully closed",
        ("gripper.pos",),
    ),
    Field(
        "tool_wrench",
        (6,),
        "float32",
        "N, N·m",
        "base",
        "external force then torque at the tool",
        ("wrench.fx", "wrench.fy", "wrench.fz", "wrench.tx", "wrench.ty", "wrench.tz"),
    ),
)

ACTION_FIELD = Field(
    "action",
    (7,),
    "float32",
    "m/s, rad/s, 1",
    "base",
    "tool twist (linear, then angular) and the gripper target, 0 open to 1 closed",
    ("tool.vx", "tool.vy", "tool.vz", "tool.wx", "tool.wy", "tool.wz", "gripper.target"),
)
ACTION_NAMES = ACTION_FIELD.component_names
STATE_NAMES: tuple[str, ...] = tuple(n for f in STATE_FIELDS for n in f.component_names)

# What policies and datasets call ``observation.state``: positions only, since velocities and the
# wrench of a position-controlled simulator do not transfer to a real arm.
POLICY_STATE_FIELDS = ("joint_positions", "tool_pose", "gripper_position")
POLICY_STATE_NAMES: tuple[str, ...] = tuple(
    n for f in STATE_FIELDS if f.name in POLICY_STATE_FIELDS for n in f.component_names
)

# What a recording of another origin may lack; see ``EpisodeInfo.missing``.
OPTIONAL_FIELDS: tuple[str, ...] = (*(f.name for f in STATE_FIELDS), ACTION_FIELD.name)

CAMERAS = ("table", "wrist")


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known about an episode as a whole; becomes the HDF5 file's attributes.

    ``operator_mark`` is the operator's own success/failure key at recording time (``None`` where no
    key was pressed). It is a hint for people, not a label: labels live in the label store.
    ``policy_checkpoint`` is ``None`` for teleoperation. ``extra`` is JSON for site facts such as the
    scene's seed. ``missing`` names what the recording lacks, of :data:`OPTIONAL_FIELDS`: those rows
    are NaN. Only imported episodes lack anything.
    """

    id: str
    task: str
    operator: str
    robot: str
    rate_hz: float
    cameras: tuple[str, ...]
    created: str
    software_version: str
    policy_checkpoint: str | None = None
    operator_mark: str | None = None
    truncated: bool = False
    schema_version: int = SCHEMA_VERSION
    extra: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def missing_for_training(self) -> tuple[str, ...]:
        """What it lacks that a policy reads or imitates; an episode with any of it cannot be trained on."""
        return tuple(name for name in self.missing if name in (*POLICY_STATE_FIELDS, ACTION_FIELD.name))


@dataclass
class Frame:
    """One control step.

    ``state`` maps each of :data:`STATE_FIELDS` to its array; ``images`` maps a camera to H×W×3 uint8
    RGB. ``action`` is what was sent to the robot, ``policy_action`` what the policy wanted (also
    while a person drives; ``None`` where no policy ran, stored as NaN). Times are nanoseconds of the
    host's real-time clock.
    """

    state: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    action: np.ndarray
    source: Source
    timestamp_ns: int
    camera_timestamp_ns: dict[str, int]
    policy_action: np.ndarray | None = None


def state_from_observation(observation: dict[str, Any]) -> dict[str, np.ndarray]:
    """Groups a robot's flat observation (LeRobot style: one float per name) into the state fields.

    Raises ``KeyError`` naming the first component that is missing.
    """
    return {
        f.name: np.array([observation[n] for n in f.component_names], dtype=f.dtype) for f in STATE_FIELDS
    }


def policy_state(state: dict[str, np.ndarray]) -> np.ndarray:
    """The policy's state vector, float32 ``(..., 15)``, in the order of :data:`POLICY_STATE_NAMES`."""
    return np.concatenate([state[name] for name in POLICY_STATE_FIELDS], axis=-1)


def action_to_dict(action: np.ndarray) -> dict[str, float]:
    """A 7-vector as the flat dictionary that a LeRobot robot's ``send_action`` takes."""
    return {name: float(value) for name, value in zip(ACTION_NAMES, action, strict=True)}


def action_from_dict(action: dict[str, Any]) -> np.ndarray:
    """The inverse of :func:`action_to_dict`; float32 ``(7,)``."""
    return np.array([action[name] for name in ACTION_NAMES], dtype=np.float32)
