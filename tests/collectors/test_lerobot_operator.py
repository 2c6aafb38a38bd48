"""LeRobot's own teleoperators, and others that know nothing of take-over, as operators."""

from __future__ import annotations

from typing import Any

import pytest
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig
from lerobot.teleoperators.gamepad import GamepadTeleop, GamepadTeleopConfig
from lerobot.teleoperators.so_leader import SO101LeaderConfig
from lerobot.teleoperators.utils import TeleopEvents

from collectors.lerobot_operator import LeRobotOperator
from collectors.operator_keys import OperatorKey
from collectors.teleoperators import Gen3Phone, Gen3PhoneConfig
from pipeline.episode import ACTION_NAMES
from pipeline.errors import Failure, InputError
from tests.contracts.operator_contract import wait_until

OURS = dict.fromkeys(ACTION_NAMES, float)
STILL = dict.fromkeys(ACTION_NAMES, 0.0)


class Plain(Teleoperator):
    """A teleoperator with LeRobot's interface and no more; a test says what it asks for."""

    config_class = TeleoperatorConfig
    name = "plain"

    def __init__(self, action: dict[str, Any]) -> None:
        """Asks for ``action`` until a test says otherwise."""
        super().__init__(SO101LeaderConfig(port="/dev/null"))
        self.action = action
        self.error: Exception | None = None
        self.felt: dict[str, Any] = {}
        self._connected = False

    @property
    def action_features(self) -> dict[str, Any]:
        """What it was built with."""
        return dict.fromkeys(self.action, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        """One, of its own."""
        return {"gripper.pos": float}

    @property
    def is_connected(self) -> bool:
        """Whether ``connect`` was called."""
        return self._connected

    @property
    def is_calibrated(self) -> bool:
        """Yes."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Connects."""
        self._connected = True

    def calibrate(self) -> None:
        """Does nothing."""

    def configure(self) -> None:
        """Does nothing."""

    def get_action(self) -> dict[str, Any]:
        """What the test says."""
        if self.error is not None:
            raise self.error
        return dict(self.action)

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Remembers it."""
        self.felt = feedback

    def disconnect(self) -> None:
        """Disconnects; LeRobot's own raise when called twice."""
        assert self._connected
        self._connected = False


def drives(operator: LeRobotOperator) -> bool:
    """Whether the person has the arm."""
    return operator.get_teleop_events()[TeleopEvents.IS_INTERVENTION]


def test_a_twist_takes_over_while_it_lasts_and_zero_hands_back() -> None:
    """A stick held still is input too, though nothing changes."""
    device = Plain(STILL | {"gripper.target": 0.5})
    operator = LeRobotOperator(device, OURS, release_after_s=0.1)
    assert not drives(operator)
    device.action["tool.vx"] = 0.1
    assert drives(operator)
    assert drives(operator)
    assert operator.get_action()["tool.vx"] == 0.1
    device.action["tool.vx"] = 0.0
    wait_until(lambda: not drives(operator), "handing back")
    device.action["gripper.target"] = 0.6
    assert drives(operator)


def test_a_leader_arm_takes_over_when_it_is_moved() -> None:
    """Its joints have no zero; small noise is not a hand."""
    features = {"shoulder.pos": 10.0, "elbow.pos": -20.0}
    device = Plain(dict(features))
    operator = LeRobotOperator(device, dict.fromkeys(features, float), release_after_s=0.0)
    assert not drives(operator)
    device.action["elbow.pos"] = -20.4
    assert not drives(operator)
    device.action["elbow.pos"] = -22.0
    assert drives(operator)
    assert not drives(operator)


def test_what_does_not_fit_the_robot_is_refused() -> None:
    """A joint leader cannot drive a twist, and LeRobot's gamepad has no turns; the line says what does."""
    leader = Plain({"shoulder.pos": 0.0, "elbow.pos": 0.0})
    gamepad = GamepadTeleop(GamepadTeleopConfig())
    for device in (leader, gamepad):
        with pytest.raises(InputError, match=r"but the robot takes the tool's twist .* use gen3_gamepad"):
            LeRobotOperator(device, OURS)


def test_one_of_ours_says_itself_who_drives() -> None:
    """Its own events count, and its keys are passed on."""
    phone = Gen3Phone(Gen3PhoneConfig())
    operator = LeRobotOperator(phone, OURS)
    phone._press(OperatorKey.STOP)
    assert operator.take_keys() == [OperatorKey.STOP]
    assert operator.feedback_features == phone.feedback_features


def test_a_device_that_fails_asks_for_no_motion() -> None:
    """At once, in one line, and it works again when the device does."""
    device = Plain(STILL | {"tool.vx": 0.1, "gripper.target": 0.7})
    operator = LeRobotOperator(device, OURS, release_after_s=0.0)
    assert operator.get_action()["tool.vx"] == 0.1
    device.error = OSError("unplugged")
    assert operator.get_action() == STILL | {"gripper.target": 0.7}
    assert not drives(operator)
    assert operator.lost == "plain cannot be read: unplugged"
    device.error = None
    assert drives(operator)
    assert operator.lost is None


def test_a_leader_arm_that_fails_ends_the_episode() -> None:
    """Nobody can say which joint angles mean no motion."""
    device = Plain({"shoulder.pos": 1.0})
    operator = LeRobotOperator(device, {"shoulder.pos": float})
    device.error = OSError("unplugged")
    with pytest.raises(Failure, match="plain cannot be read: unplugged"):
        operator.get_action()


def test_the_rest_is_passed_on() -> None:
    """Connecting, feedback, and a harmless second disconnect."""
    device = Plain(dict(STILL))
    operator = LeRobotOperator(device, OURS)
    operator.connect()
    assert operator.is_connected
    operator.send_feedback({"gripper.pos": 0.5})
    assert device.felt == {"gripper.pos": 0.5}
    operator.disconnect()
    operator.disconnect()
    assert operator.take_keys() == []
    assert operator.name == "plain"
    assert operator.action_features == OURS
