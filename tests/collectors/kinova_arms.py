"""A kinova_gen3 over the simulated arm, for tests: robots, commands, waiting for the arm to stand still."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from collectors.arm_interface import ArmStopped
from collectors.kinova_gen3 import KinovaGen3, KinovaGen3Config
from pipeline.episode import action_to_dict
from tests.kortex_stand_in.arm_fixture import HOW_TO_RUN
from tests.kortex_stand_in.simulated_arm import SimulatedArm

PATIENT_S = 4.0
"""For ``stop_after_s`` where that is not tested: a busy machine may silence a simulated arm for a second."""
FORWARD = np.array([0.04, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
"""An action (7,): slowly forward, the gripper open."""


@contextlib.contextmanager
def relentless_arm(client: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedArm]:
    """A simulated arm that obeys no session time-out, for processes that use ``client`` of ``CLIENTS``.

    Afterwards the client must not have been used in a way that the vendor's would not survive.
    """
    if client == "vendor" and importlib.util.find_spec("kortex_api") is None:
        pytest.skip(HOW_TO_RUN)
    with SimulatedArm(obeys_inactivity=False) as arm:
        for name, value in arm.client_environment().items():
            if name != "PYTHONPATH" or client == "stand-in":
                monkeypatch.setenv(name, value)
        yield arm
        assert arm.violations == []


@pytest.fixture(name="arm")
def stand_in_arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedArm]:
    """A simulated arm that obeys no session time-out, for the stand-in's client."""
    with relentless_arm("stand-in", monkeypatch) as arm:
        yield arm


def robot_config(arm: SimulatedArm, **settings: Any) -> KinovaGen3Config:
    """The configuration that points a robot at ``arm``."""
    return KinovaGen3Config(ip=arm.address, tcp_port=arm.tcp_port, udp_port=arm.udp_port, **settings)


@contextlib.contextmanager
def connected(arm: SimulatedArm, **settings: Any) -> Iterator[KinovaGen3]:
    """A robot connected to ``arm``, disconnected afterwards; patient unless told otherwise."""
    robot = KinovaGen3(robot_config(arm, **{"stop_after_s": PATIENT_S} | settings))
    robot.connect()
    try:
        yield robot
    finally:
        robot.disconnect()


def drive(robot: KinovaGen3, action: np.ndarray, seconds: float, rate_hz: float = 20.0) -> dict[str, float]:
    """Sends an action (7,) again and again; what was sent last."""
    sent: dict[str, float] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sent = robot.send_action(action_to_dict(action))
        time.sleep(1 / rate_hz)
    return sent


@contextlib.contextmanager
def driving(robot: KinovaGen3, arm: SimulatedArm, action: np.ndarray = FORWARD) -> Iterator[list[ArmStopped]]:
    """Keeps commands coming from a thread, as a collector does, until the arm counts as stopped.

    The arm moves when the block is entered. The list gets the ``ArmStopped`` that ended it.
    """
    ended: list[ArmStopped] = []
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.02):
            try:
                robot.send_action(action_to_dict(action))
            except ArmStopped as stopped:
                ended.append(stopped)
                return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        assert arm.wait_until_moving(), "the arm did not start to move"
        yield ended
    finally:
        over.set()
        thread.join()


def wait_until_stopped(robot: KinovaGen3, timeout_s: float = 20.0) -> str:
    """Waits until the robot says that the arm is stopped; its words."""
    deadline = time.monotonic() + timeout_s
    while (words := robot.condition.stopped) is None:
        assert time.monotonic() < deadline, "the robot never said that the arm is stopped"
        time.sleep(0.01)
    return words


def wait_for_words(robot: KinovaGen3, part: str, timeout_s: float = 20.0) -> str:
    """Waits until the robot's reason for the stop contains ``part``; the whole of it."""
    deadline = time.monotonic() + timeout_s
    while part not in (words := robot.condition.stopped or ""):
        assert time.monotonic() < deadline, f"{part!r} is not in {words!r}"
        time.sleep(0.01)
    assert "\n" not in words
    return words


def assert_clearing_lets_it_move(robot: KinovaGen3, arm: SimulatedArm) -> None:
    """Nothing moves before the operator's word and a command after it; then it does."""
    assert not arm.is_moving()
    with pytest.raises(ArmStopped):
        robot.send_action(action_to_dict(FORWARD))
    robot.clear_faults()
    assert robot.condition.stopped is None
    assert not arm.is_moving()
    with driving(robot, arm) as ended:
        pass
    assert not ended
    assert arm.wait_until_still()
