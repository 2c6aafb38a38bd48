"""What the collection loop needs of a robot, an operator, a policy and a recorder, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from lerobot.teleoperators.utils import TeleopEvents

from collectors.policy_timing import PlanReport
from pipeline.episode import ACTION_NAMES, Frame


class RobotLike(Protocol):
    """The part of LeRobot's ``Robot`` that the loop uses; ``arm_interface`` has what it may offer besides."""

    def get_observation(self) -> dict[str, Any]:
        """A flat observation: a float per state name, an H×W×3 uint8 image per camera."""
        ...

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Sends an action and returns the one that was really sent."""
        ...


class OperatorLike(Protocol):
    """The part of LeRobot's ``Teleoperator`` (with ``HasTeleopEvents``) that the loop uses.

    One that names ``feedback_features`` gets these of every observation; one with ``take_keys`` has keys.
    """

    def get_action(self) -> dict[str, Any]:
        """The action that the person asks for now."""
        ...

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Take-over, end of episode, success and failure keys."""
        ...


class PolicyLike(Protocol):
    """Anything that turns an observation into a 7-D action."""

    def act(self, observation: dict[str, Any]) -> np.ndarray | None:
        """Float32 ``(7,)`` in the order of ``pipeline.episode.ACTION_NAMES``.

        ``None`` where the policy has none at this moment: the arm is then held still.
        """
        ...


@runtime_checkable
class TimedPolicy(Protocol):
    """A policy that measures how well it keeps up."""

    def report(self) -> PlanReport:
        """The figures of the present episode."""
        ...


@runtime_checkable
class PlanningPolicy(Protocol):
    """A policy that plans several actions ahead."""

    def drop_plan(self) -> None:
        """Forgets the actions it planned: the next come from an observation that is yet to come."""
        ...


class Recorder(Protocol):
    """Where frames go; ``pipeline.episode_file.EpisodeWriter`` is one."""

    def append(self, frame: Frame) -> None:
        """Takes one frame."""
        ...


def still(observation: Mapping[str, Any], gripper_target: float | None) -> dict[str, float]:
    """The action of no motion; the gripper keeps its target, so that what it holds stays held.

    Where it was never given one it keeps the position that it is observed at.
    """
    gripper = observation["gripper.pos"] if gripper_target is None else gripper_target
    return dict.fromkeys(ACTION_NAMES, 0.0) | {ACTION_NAMES[-1]: float(gripper)}


def give_feedback(
    operator: OperatorLike, observation: Mapping[str, Any], gripper_target: float | None = None
) -> None:
    """Tells a teleoperator what it wants to feel of the robot; most want nothing.

    ``gripper.target`` is what was sent last: who takes over from there does not loosen what is held.
    """
    names = getattr(operator, "feedback_features", None)
    if names:
        felt = dict(observation)
        if gripper_target is not None:
            felt[ACTION_NAMES[-1]] = gripper_target
        known = {name: felt[name] for name in names if name in felt}
        operator.send_feedback(known)  # type: ignore[attr-defined]  # it names feedback_features
