"""Nobody at an input device: for rollouts that a person only watches, with the keys at hand."""

from __future__ import annotations

from typing import Any

from lerobot.teleoperators.utils import TeleopEvents

from pipeline.episode import ACTION_NAMES


class IdleOperator:
    """An operator who never takes over. Asked to drive, for example between episodes, it holds still."""

    feedback_features = {"gripper.pos": float}  # noqa: RUF012  # read-only, as LeRobot's teleoperators have it
    action_features = dict.fromkeys(ACTION_NAMES, float)

    def __init__(self) -> None:
        """Holds the gripper open until it is told where the gripper is."""
        self._gripper = 0.0

    def connect(self) -> None:
        """Nothing to connect."""

    def disconnect(self) -> None:
        """Nothing to disconnect."""

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Remembers where the gripper is, to hold it there."""
        self._gripper = float(feedback["gripper.pos"])

    def get_action(self) -> dict[str, Any]:
        """No motion."""
        return dict.fromkeys(ACTION_NAMES, 0.0) | {ACTION_NAMES[-1]: self._gripper}

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """No events: what ends the episode comes from the keys."""
        return {}
