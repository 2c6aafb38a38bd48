"""Whatever goes wrong, the arm stops: each test looks at the simulated arm itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from collectors.arm_interface import ArmStopped
from collectors.kinova_gen3 import KinovaGen3
from pipeline.episode import ACTION_NAMES, action_to_dict
from pipeline.errors import InputError
from tests.collectors.kinova_arms import (
    FORWARD,
    assert_clearing_lets_it_move,
    connected,
    drive,
    driving,
    relentless_arm,
    wait_for_words,
    wait_until_stopped,
)
from tests.kortex_stand_in.arm_fixture import CLIENTS
from tests.kortex_stand_in.simulated_arm import SimulatedArm


@pytest.fixture(params=CLIENTS)
def arm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedArm]:
    """A simulated arm that keeps a dead client's twist in force for ever: nothing but our driver stops it."""
    with relentless_arm(request.param, monkeypatch) as arm:
        yield arm


@pytest.fixture
def robot(arm: SimulatedArm) -> Iterator[KinovaGen3]:
    """A robot connected to the arm."""
    with connected(arm, stop_after_s=1.0) as robot:
        yield robot


def test_commands_stop_coming(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Zero twist after 200 ms, Stop after 1 s, though the session is kept alive; a new command moves it."""
    with driving(robot, arm):
        pass
    last = arm.received("SendTwistCommand")[-1]
    assert arm.wait_until_still()
    assert arm.wait_for(lambda: bool(arm.received("Stop")))
    zero = arm.received("SendTwistCommand")[-1]
    assert not any(zero.values)
    assert zero.received_ns - last.received_ns >= 0.1e9
    assert arm.received("Stop")[-1].received_ns - last.received_ns >= 0.8e9
    assert robot.condition.stopped is None
    with driving(robot, arm):
        pass


def test_the_words_while_it_waits_for_commands(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Between zero twist and Stop the condition says why it holds still."""
    with driving(robot, arm):
        pass
    assert arm.wait_for(lambda: any("no command" in words for words in robot.condition.limits))


def test_the_connection_closes(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """The twist in force is ended over a new connection; driving goes on only at the operator's word."""
    with driving(robot, arm):
        arm.close_connections()
        assert arm.wait_until_still()
    wait_for_words(robot, "connection to the arm is closed")
    assert_clearing_lets_it_move(robot, arm)


def test_feedback_falls_silent(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Only the arm's replies are lost: it still gets the zero twist, and the operator the reason."""
    with driving(robot, arm):
        arm.go_silent(still_obeys=True)
        assert arm.wait_until_still()
    words = wait_until_stopped(robot)
    assert "no feedback" in words or "does not answer" in words
    with pytest.raises(ArmStopped):
        robot.get_observation()
    arm.speak_again()
    assert_clearing_lets_it_move(robot, arm)


def test_feedback_alone_falls_silent(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Commands are answered as ever: the zero twist comes first, then Stop and the words."""
    with driving(robot, arm) as ended:
        arm.delay_replies(30.0, "RefreshFeedback")
        assert arm.wait_until_still()
        assert arm.wait_for(lambda: bool(ended))
    wait_for_words(robot, "no feedback from the arm")
    assert arm.received("Stop")
    arm.delay_replies(0.0)
    assert_clearing_lets_it_move(robot, arm)


def test_an_emergency_stop_without_a_connection(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """The connection was closed while the arm stood still: the stop goes over a new one."""
    stops = len(arm.received("Stop"))
    arm.close_connections()
    robot.emergency_stop()
    assert arm.wait_for(lambda: len(arm.received("Stop")) > stops)
    assert robot.condition.stopped is not None
    assert arm.wait_for(lambda: "connection" in (robot.condition.stopped or ""))
    assert_clearing_lets_it_move(robot, arm)


def test_a_refused_gripper_command(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Counts like any other refused command."""
    arm.reject_next(3, "ROBOT_NOT_READY", "SendGripperCommand")
    with pytest.raises(ArmStopped, match="not ready"):
        drive(robot, np.array([0.04, 0, 0, 0, 0, 0, 1.0]), 20.0)
    assert arm.wait_until_still()


def test_a_pulled_cable_that_is_put_back(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Nothing reaches the arm while the cable is out; the stop is repeated until it does."""
    with driving(robot, arm):
        arm.go_silent()
        wait_until_stopped(robot)
        arm.speak_again()
        assert arm.wait_until_still()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("JOINT_FAULT", "a joint is in fault"),
        ("MAXIMUM_END_EFFECTOR_TRANSLATION_FORCE", "protective stop"),
    ],
)
def test_a_fault_in_mid_motion(robot: KinovaGen3, arm: SimulatedArm, fault: str, words: str) -> None:
    """Named in words, not cleared by itself, cleared by the operator."""
    with driving(robot, arm) as ended:
        arm.raise_fault(fault)
        assert arm.wait_until_still()
        assert arm.wait_for(lambda: bool(ended))
    wait_for_words(robot, words)
    assert not arm.received("ClearFaults")
    assert_clearing_lets_it_move(robot, arm)


def test_a_protective_stop(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """What a collision does."""
    with driving(robot, arm):
        arm.protective_stop()
        assert arm.wait_until_still()
    wait_for_words(robot, "the arm stopped itself")
    assert_clearing_lets_it_move(robot, arm)


def test_the_red_button(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Clearing does not help while it is pressed, and says so."""
    with driving(robot, arm):
        arm.emergency_stop_pressed()
        assert arm.wait_until_still()
    wait_for_words(robot, "emergency")
    with pytest.raises(ArmStopped, match="emergency"):
        robot.clear_faults()
    assert robot.condition.stopped is not None
    arm.emergency_stop_released()
    assert_clearing_lets_it_move(robot, arm)


def test_our_emergency_stop(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """The key in a collector: the arm's own emergency stop, at once, until the operator clears it."""
    with driving(robot, arm) as ended:
        robot.emergency_stop()
        assert arm.wait_until_still()
        assert arm.wait_for(lambda: bool(ended))
    assert arm.received("ApplyEmergencyStop")
    assert "emergency stop" in wait_until_stopped(robot)
    assert_clearing_lets_it_move(robot, arm)


def test_an_emergency_stop_that_the_arm_refuses(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Then the zero twist and Stop do it."""
    with driving(robot, arm):
        arm.reject_next(call="ApplyEmergencyStop")
        robot.emergency_stop()
        assert arm.wait_until_still()
    assert "emergency stop" in wait_until_stopped(robot)


@pytest.mark.parametrize("how", ["take_control_from_client", "second_client_connects"])
def test_another_client_takes_control(robot: KinovaGen3, arm: SimulatedArm, how: str) -> None:
    """The web application or a second program: we let go, and take over again only at the operator's word."""
    with driving(robot, arm) as ended:
        getattr(arm, how)()
        assert arm.wait_for(lambda: bool(ended))
        assert arm.wait_until_still()
    words = wait_until_stopped(robot)
    assert "another client" in words or "lost control" in words
    with pytest.raises(ArmStopped):
        robot.clear_faults()
    arm.give_control_back()
    assert_clearing_lets_it_move(robot, arm)


@pytest.mark.parametrize(
    ("error_code", "sub_code", "words"),
    [
        (3, "WRONG_SERVOING_MODE", "servoing mode"),
        (3, "INVALID_SESSION", "session"),
        (3, "ROBOT_NOT_READY", "not ready"),
        (2, 14, "refused a command"),  # raised as the client's own exception
    ],
)
def test_a_refused_command(
    robot: KinovaGen3, arm: SimulatedArm, error_code: int, sub_code: int | str, words: str
) -> None:
    """One refusal is enough to stop, and is not retried behind the operator's back."""
    with driving(robot, arm) as ended:
        arm.reject_next(error_code, sub_code, "SendTwistCommand")
        assert arm.wait_for(lambda: bool(ended))
        assert arm.wait_until_still()
    wait_for_words(robot, words)
    assert_clearing_lets_it_move(robot, arm)


def test_commands_that_are_not_answered(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """The arm obeys but its replies come too late: three in a row, and the arm counts as not answering."""
    with driving(robot, arm) as ended:
        arm.delay_replies(0.5, "SendTwistCommand")
        assert arm.wait_for(lambda: bool(ended))
        assert arm.wait_until_still()
    wait_for_words(robot, "does not answer")
    arm.delay_replies(0.0)
    assert_clearing_lets_it_move(robot, arm)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_command_that_is_no_number(robot: KinovaGen3, arm: SimulatedArm, bad: float) -> None:
    """Refused, and the arm holds still at once, not only after the watchdog's time."""
    drive(robot, FORWARD, 0.3)
    before = len(arm.received("SendTwistCommand"))
    with pytest.raises(InputError, match="finite"):
        robot.send_action(dict(zip(ACTION_NAMES, [0.04, bad, 0, 0, 0, 0, 0], strict=True)))
    assert arm.wait_for(lambda: len(arm.received("SendTwistCommand")) > before)
    assert arm.wait_until_still()
    assert robot.condition.stopped is None


def test_latest_command_wins(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """A hundred commands at once: the arm gets at most 40 a second, and ends with the last."""
    for i in range(100):
        robot.send_action(action_to_dict(FORWARD * (i + 1) / 100))
    assert arm.wait_for(lambda: np.allclose(arm.twist_now()[:3], FORWARD[:3], atol=1e-6), 0.19)
    drive(robot, FORWARD, 1.0, rate_hz=200)
    times = np.array([c.received_ns for c in arm.received("SendTwistCommand")]) / 1e9
    assert len(times[times > times[-1] - 1.0]) <= 42


def test_an_arm_in_fault_can_be_connected_and_cleared(arm: SimulatedArm) -> None:
    """Nothing moves, the words are there, and the operator clears it from the collector."""
    arm.raise_fault()
    with connected(arm) as robot:
        assert "joint" in wait_until_stopped(robot)
        with pytest.raises(ArmStopped, match="joint"):
            robot.get_observation()
        assert robot.state().shape == (28,)
        assert_clearing_lets_it_move(robot, arm)


def test_a_stop_while_the_operator_clears(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """A fault that does not go away: clearing says so and nothing moves."""
    arm.raise_fault(stuck=True)
    wait_until_stopped(robot)
    started = time.monotonic()
    # On a busy machine the feedback may have been late just then.
    with pytest.raises(ArmStopped, match=r"joint|no feedback"):
        robot.clear_faults()
    assert time.monotonic() - started < 30
    assert not arm.is_moving()
