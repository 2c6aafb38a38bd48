"""Processes that hang, are killed or end: the arm stops all the same, seen at the simulated arm itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import psutil
import pytest

from collectors.arm_interface import ArmStopped
from collectors.kinova_gen3 import KinovaGen3
from tests.collectors.kinova_arms import (
    FORWARD,
    assert_clearing_lets_it_move,
    connected,
    drive,
    driving,
    relentless_arm,
    robot_config,
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


def driver_of(robot: KinovaGen3) -> psutil.Process:
    """The driver's process."""
    return psutil.Process(robot.driver_pid)


_PARENT = """
    import sys, time
    import numpy as np
    from collectors.kinova_gen3 import KinovaGen3, KinovaGen3Config
    from pipeline.episode import action_to_dict
    robot = KinovaGen3(KinovaGen3Config(ip=sys.argv[1], tcp_port=int(sys.argv[2]), udp_port=int(sys.argv[3])))
    robot.connect()
    print(robot.driver_pid, flush=True)
    for i in range(2000):
        robot.send_action(action_to_dict(np.array([0.04, 0, 0, 0, 0, 0, 0])))
        time.sleep(0.02)
        {then}
"""


def parent_of_a_robot(arm: SimulatedArm, then: str = "pass") -> tuple[subprocess.Popen[str], psutil.Process]:
    """A process that drives the arm forwards, and its driver; returns when the arm moves."""
    code = textwrap.dedent(_PARENT).format(then=then)
    command = [sys.executable, "-c", code, arm.address, str(arm.tcp_port), str(arm.udp_port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    driver = psutil.Process(int(process.stdout.readline()))
    assert arm.wait_until_moving()
    return process, driver


def reap(process: subprocess.Popen[str]) -> str:
    """Ends a process and gives what it said on its standard error."""
    process.kill()
    return process.communicate()[1]


def test_the_parent_hangs(arm: SimulatedArm) -> None:
    """SIGSTOP, the plainest hang: the arm stops, and moves again when commands come again."""
    process, driver = parent_of_a_robot(arm)
    try:
        process.send_signal(signal.SIGSTOP)
        assert arm.wait_until_still()
        assert arm.wait_for(lambda: bool(arm.received("Stop")))
        process.send_signal(signal.SIGCONT)
        assert arm.wait_until_moving()
    finally:
        reap(process)
    driver.wait(20)


def test_the_parent_is_killed(arm: SimulatedArm) -> None:
    """The driver stops the arm, ends its sessions and goes."""
    process, driver = parent_of_a_robot(arm)
    reap(process)
    assert arm.wait_until_still()
    driver.wait(20)
    assert arm.wait_for(lambda: arm.session_count == 0)
    assert arm.received("Stop")


@pytest.mark.parametrize(("then", "said"), [("1 / 0", "ZeroDivisionError"), ("sys.exit(3)", "")])
def test_an_exception_in_the_caller(arm: SimulatedArm, then: str, said: str) -> None:
    """Nobody calls disconnect; the interpreter's end does, and the exception goes its way."""
    process, driver = parent_of_a_robot(arm, f"\n    if i == 60: {then}")
    try:
        assert process.wait(30) != 0
        assert not arm.is_moving()
        assert not arm.twist_now().any()
        driver.wait(20)
    finally:
        assert said in reap(process)


def test_ctrl_c(arm: SimulatedArm) -> None:
    """SIGINT to the caller, as the terminal sends it: the driver is in another session and stops in order."""
    process, driver = parent_of_a_robot(arm)
    assert os.getsid(driver.pid) != os.getsid(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    assert not arm.twist_now().any()
    driver.wait(20)
    assert arm.session_count == 0
    assert "KeyboardInterrupt" in reap(process)


def test_the_driver_is_killed(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """A fresh process stops the arm; the operator's word starts a fresh driver."""
    with driving(robot, arm) as ended:
        driver_of(robot).kill()
        assert arm.wait_until_still()
        assert arm.wait_for(lambda: bool(ended))
    wait_for_words(robot, "the arm was stopped")
    with pytest.raises(ArmStopped):
        robot.get_observation()
    assert_clearing_lets_it_move(robot, arm)


def test_the_driver_hangs_altogether(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """SIGSTOP: even its watchdog stands still. The robot object misses it and has the arm stopped."""
    with driving(robot, arm):
        driver_of(robot).suspend()
        assert arm.wait_until_still()
    assert "was stopped" in wait_for_words(robot, "was stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_driver_is_asked_to_end(robot: KinovaGen3, arm: SimulatedArm, number: int) -> None:
    """As at shutdown of the computer: zero twist, Stop, sessions closed."""
    with driving(robot, arm):
        driver_of(robot).send_signal(number)
        assert arm.wait_until_still()
    wait_until_stopped(robot)
    assert arm.received("Stop")


def test_disconnect_stops_a_moving_arm(arm: SimulatedArm) -> None:
    """And a second one is harmless."""
    with connected(arm) as robot:
        drive(robot, FORWARD, 0.2)
        robot.disconnect()
        assert not arm.twist_now().any()
        assert arm.received("Stop")
        assert arm.session_count == 0


def test_a_robot_that_is_dropped(arm: SimulatedArm) -> None:
    """No disconnect and no reference left: the arm stops all the same."""
    robot = KinovaGen3(robot_config(arm))
    robot.connect()
    drive(robot, FORWARD, 0.2)
    driver = driver_of(robot)
    del robot
    driver.wait(20)
    assert not arm.twist_now().any()
    assert arm.received("Stop")
