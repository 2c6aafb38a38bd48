"""Any LeRobot teleoperator as operator, provided that its action is the robot's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lerobot.teleoperators import Teleoperator
from lerobot.teleoperators.utils import TeleopEvents

from collectors.operator_keys import OperatorKey
from collectors.take_over import TakeOver
from pipeline.episode import ACTION_NAMES
from pipeline.errors import Failure, InputError

_log = logging.getLogger(__name__)

_TWIST_NAMES = ACTION_NAMES[:6]
_AT_REST = 1e-6  # m/s or rad/s
_MOVED_BY = 0.02  # of the gripper's 0..1
_JOINT_MOVED_BY = 1.0  # LeRobot's leader arms speak degrees or percent


class LeRobotOperator:
    """Gives a teleoperator that knows nothing of take-over the events and keys of ours.

    Its input is told from its action: a twist that is not zero, or a value that moved (a leader arm's
    joint, a gripper). What a teleoperator says itself by ``get_teleop_events`` counts before that.
    """

    def __init__(
        self,
        teleoperator: Teleoperator,
        robot_action_features: Mapping[str, Any],
        *,
        release_after_s: float = 0.5,
        moved_by: float | None = None,
    ) -> None:
        """``InputError`` unless both speak of the same action.

        ``moved_by`` is the change of a value that counts as input: by default 0.02 for a gripper target, 1
        (degree or percent) for anything else.
        """
        check_action_fits(teleoperator, robot_action_features)
        self.teleoperator = teleoperator
        self.lost: str | None = None
        self._moved_by = moved_by
        self._take_over = TakeOver(release_after_s)
        self._unused: dict[str, Any] | None = None
        self._rest: dict[str, float] | None = None
        self._last: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The teleoperator's."""
        return self.teleoperator.name

    @property
    def action_features(self) -> dict[str, Any]:
        """The teleoperator's, which are the robot's."""
        return dict(self.teleoperator.action_features)

    @property
    def feedback_features(self) -> dict[str, Any]:
        """The teleoperator's; empty where it has none."""
        return dict(self.teleoperator.feedback_features or {})

    @property
    def is_connected(self) -> bool:
        """Whether the teleoperator is."""
        return bool(self.teleoperator.is_connected)

    def connect(self) -> None:
        """Connects the teleoperator."""
        self.teleoperator.connect()

    def disconnect(self) -> None:
        """Disconnects the teleoperator; harmless when it is not connected."""
        if self.is_connected:
            self.teleoperator.disconnect()

    def send_feedback(self, feedback: Mapping[str, Any]) -> None:
        """Passes on what the teleoperator asked for."""
        if self.feedback_features:
            self.teleoperator.send_feedback(dict(feedback))

    def get_action(self) -> dict[str, Any]:
        """What the teleoperator asks for now.

        One that fails asks for no motion when its action is a twist; otherwise nobody can tell what no
        motion is, and ``Failure`` says what happened.
        """
        action = self._read() if self._unused is None else self._unused
        self._unused = None
        return action

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """The teleoperator's own events; whether the person drives, from its action where it does not say."""
        said: Mapping[Any, Any] = getattr(self.teleoperator, "get_teleop_events", dict)() or {}
        events = dict.fromkeys(TeleopEvents, False)
        events.update({TeleopEvents(key): bool(on) for key, on in said.items()})
        self._unused = self._read()
        moved = self._moves(self._unused) and self.lost is None
        if TeleopEvents.IS_INTERVENTION not in said:
            events[TeleopEvents.IS_INTERVENTION] = self._take_over.update(moved)
        return events

    def take_keys(self) -> list[OperatorKey]:
        """The teleoperator's keys, where it has any."""
        return list(getattr(self.teleoperator, "take_keys", list)())

    def _read(self) -> dict[str, Any]:
        try:
            action = dict(self.teleoperator.get_action())
        except Exception as error:
            self.lost = f"{self.name} cannot be read: {error or type(error).__name__}"
            if set(self.action_features) != set(ACTION_NAMES):
                raise Failure(self.lost) from error
            _log.debug("%s", self.lost, exc_info=error)
            return dict.fromkeys(ACTION_NAMES, 0.0) | {
                ACTION_NAMES[-1]: self._last.get(ACTION_NAMES[-1], 0.0)
            }
        self.lost = None
        self._last = action
        return action

    def _moves(self, action: Mapping[str, Any]) -> bool:
        values = {name: float(value) for name, value in action.items()}
        rest, moves = self._rest, any(abs(values.get(name, 0.0)) > _AT_REST for name in _TWIST_NAMES)
        if rest is None:
            self._rest = values
            return moves
        for name, value in values.items():
            if name not in _TWIST_NAMES and abs(value - rest.get(name, value)) > self._threshold(name):
                self._rest = values
                moves = True
        return moves

    def _threshold(self, name: str) -> float:
        if self._moved_by is not None:
            return self._moved_by
        return _MOVED_BY if name == ACTION_NAMES[-1] else _JOINT_MOVED_BY


def check_action_fits(teleoperator: Teleoperator, robot_action_features: Mapping[str, Any]) -> None:
    """``InputError`` unless the teleoperator's action has exactly the robot's names."""
    offered, needed = set(teleoperator.action_features), set(robot_action_features)
    if offered == needed:
        return
    gives = ", ".join(sorted(offered))
    if set(ACTION_NAMES) == needed:
        needs = "the tool's twist and a gripper target"
    else:
        needs = ", ".join(sorted(needed))
    raise InputError(
        f"teleoperator {teleoperator.name!r} gives {gives}, but the robot takes {needs}; "
        "use gen3_gamepad, gen3_spacemouse, gen3_keyboard or gen3_phone, or one that fits the robot"
    )
