"""What all devices share: response curve, settings, frames, the thread that reads; and LeRobot finds them."""

from __future__ import annotations

import math
import pkgutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lerobot.configs.parser import load_plugin
from lerobot.teleoperators import TeleoperatorConfig, make_teleoperator_from_config

import collectors
from collectors.teleoperators import Gen3Gamepad, Gen3GamepadConfig
from collectors.teleoperators.__main__ import main
from collectors.teleoperators.device_input import NEUTRAL, DeviceInput
from collectors.teleoperators.device_operator import DeviceOperator
from collectors.teleoperators.device_thread import HANGS_AFTER_S, DeviceThread
from collectors.teleoperators.finding import describe_devices, udev_advice
from collectors.teleoperators.response import at_most, response
from collectors.teleoperators.spacemouse import UDEV_RULE
from pipeline.episode import action_from_dict
from pipeline.errors import InputError
from pipeline.gen3_kinematics import quaternion_from_rotation
from tests.contracts.operator_contract import wait_until

TYPES = ("gen3_gamepad", "gen3_spacemouse", "gen3_keyboard", "gen3_phone")
DEFLECTIONS = st.floats(-1.5, 1.5)
DEAD_ZONES = st.floats(0.0, 0.9)
CURVES = st.floats(0.0, 1.0)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DEFLECTIONS, DEFLECTIONS, DEAD_ZONES, CURVES)
def test_the_response_is_monotone_odd_and_bounded(a: float, b: float, dead_zone: float, curve: float) -> None:
    """Pushing further never asks for less; left is as good as right; full speed is the limit."""
    low, high = sorted((a, b))
    assert response(low, dead_zone, curve) <= response(high, dead_zone, curve)
    assert response(-a, dead_zone, curve) == -response(a, dead_zone, curve)
    assert -1.0 <= response(a, dead_zone, curve) <= 1.0
    assert response(1.0, dead_zone, curve) == pytest.approx(1.0)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DEAD_ZONES, CURVES, st.floats(0.0, 1.0))
def test_the_response_is_zero_in_the_dead_zone_and_continuous_at_its_edge(
    dead_zone: float, curve: float, share: float
) -> None:
    """Leaving the dead zone does not jump."""
    assert response(share * dead_zone, dead_zone, curve) == 0.0
    assert response(dead_zone + 1e-6, dead_zone, curve) <= 1e-4


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DEAD_ZONES, CURVES)
def test_the_response_has_no_steps_anywhere(dead_zone: float, curve: float) -> None:
    """A step of a thousandth asks for at most a few hundredths more."""
    values = [response(i / 1000, dead_zone, curve) for i in range(1001)]
    assert max(b - a for a, b in pairwise(values)) <= 3.1e-3 / (1 - dead_zone)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_moves_nothing(bad: float) -> None:
    """A driver's fault must not drive an arm."""
    assert response(bad, 0.1, 0.5) == 0.0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0.1, 1.0))
def test_the_limit_keeps_the_direction(values: list[float], longest: float) -> None:
    """It only shortens."""
    vector = np.array(values)
    limited = at_most(vector, longest)
    assert np.linalg.norm(limited) <= longest + 1e-9
    assert np.allclose(np.cross(vector, limited), 0.0, atol=1e-9)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("setting", "bad"),
    [
        ("max_linear_speed", 0.0),
        ("max_angular_speed", math.inf),
        ("gripper_speed", math.nan),
        ("slow_factor", 1.5),
        ("dead_zone", 1.0),
        ("curve", -0.1),
        ("facing_deg", math.nan),
        ("release_after_s", -1.0),
        ("frame", "world"),
        ("gripper", "squeeze"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: str, setting: str, bad: Any) -> None:
    """When they are given, not when the arm moves; the line names device, setting and what is right."""
    config = TeleoperatorConfig.get_choice_class(kind)
    with pytest.raises(InputError, match=f"{kind}: {setting} is .*; it must be "):
        config(**{setting: bad})


@pytest.mark.parametrize("kind", TYPES)
def test_lerobot_finds_and_makes_it(kind: str) -> None:
    """As ``--teleop.discover_packages_path=collectors --teleop.type=…`` does; nothing is opened yet."""
    load_plugin("collectors.teleoperators")
    operator = make_teleoperator_from_config(TeleoperatorConfig.get_choice_class(kind)(id="mine"))
    assert isinstance(operator, DeviceOperator)
    assert operator.name == kind
    assert not operator.is_connected
    assert operator.lost is None


def test_discovery_from_the_package_above_reaches_them() -> None:
    """LeRobot imports what is directly in the package that people name: ``collectors``."""
    assert "teleoperators" in {module.name for module in pkgutil.iter_modules(collectors.__path__)}
    assert set(TYPES) <= set(TeleoperatorConfig.get_known_choices())


class Still(DeviceOperator):
    """An operator without a device, whose controls stand as a test says."""

    name = "still"
    state = NEUTRAL
    _open = False

    @property
    def is_connected(self) -> bool:
        """Whether ``connect`` was called."""
        return self._open

    def _start(self) -> None:
        self._open = True

    def _stop(self) -> None:
        self._open = False

    def _read(self) -> DeviceInput:
        return self.state


def still(**settings: Any) -> Still:
    """A connected one; a gamepad's settings, since the shared ones have no name of their own."""
    operator = Still(Gen3GamepadConfig(dead_zone=0.0, curve=0.0, **settings))
    operator.connect()
    return operator


def test_facing_the_arm_turns_the_axes_around() -> None:
    """Who stands opposite pushes away from himself, towards the base."""
    operator = still(facing_deg=180.0)
    operator.state = DeviceInput((1.0, 0.5, 0.0, 0.0, 0.0, 1.0))
    twist = action_from_dict(operator.get_action())[:6]
    assert twist[0] < 0.0
    assert twist[1] < 0.0
    assert twist[5] == pytest.approx(0.8)


def test_tool_frame_turns_with_the_tool_and_waits_until_it_knows_how() -> None:
    """Without the orientation nothing moves, and it says why."""
    operator = still(frame="tool")
    operator.state = DeviceInput((0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
    assert not action_from_dict(operator.get_action())[:6].any()
    assert operator.lost is not None
    assert "orientation" in operator.lost
    down = np.diag([1.0, -1.0, -1.0])  # the tool's z looks down
    names = ("tool.qw", "tool.qx", "tool.qy", "tool.qz")
    operator.send_feedback(dict(zip(names, quaternion_from_rotation(down), strict=True)))
    assert np.allclose(action_from_dict(operator.get_action())[:3], [0.0, 0.0, -0.2])
    assert operator.lost is None
    operator.send_feedback({"tool.qw": math.nan, "unknown": 1.0})
    assert np.isfinite(action_from_dict(operator.get_action())).all()


class Scripted:
    """A device that hangs, fails or answers as told."""

    def __init__(self) -> None:
        """It answers."""
        self.hangs_s = 0.0
        self.state = NEUTRAL
        self.error: Exception | None = None

    def open(self) -> None:
        """It is there."""

    def poll(self) -> DeviceInput:
        """Answers after a while, or fails."""
        time.sleep(0.005 + self.hangs_s)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.state

    def close(self) -> None:
        """Nothing to do."""


def test_a_driver_that_hangs_counts_as_let_go() -> None:
    """The last deflection must not stay in force."""
    device = Scripted()
    thread = DeviceThread(device, name="the device", rest=0.1, on_press=lambda press: None)
    thread.start()
    device.state = DeviceInput((1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    wait_until(lambda: thread.latest().axes[0] == 1.0, "moving")
    device.hangs_s = 6 * HANGS_AFTER_S
    wait_until(lambda: thread.latest() is NEUTRAL, "stopping")
    assert thread.lost is not None
    device.hangs_s = 0.0
    wait_until(lambda: thread.latest().axes[0] == 1.0, "coming back")
    thread.stop()


def test_a_driver_that_fails_counts_as_unplugged() -> None:
    """Whatever it raises; the line says what."""
    device = Scripted()
    thread = DeviceThread(device, name="the device", rest=0.1, on_press=lambda press: None)
    thread.start()
    device.error = RuntimeError("broken pipe")
    wait_until(lambda: thread.lost == "the device cannot be read: broken pipe", "saying so")
    wait_until(lambda: thread.lost is None, "trying again")
    thread.stop()


def test_devices_are_described_where_there_are_none() -> None:
    """One line each, and the rule for udev names both makers."""
    lines = describe_devices()
    assert {line.split(" ", maxsplit=1)[0].rstrip(":") for line in lines} >= {"SpaceMouse"}
    assert all("\n" not in line for line in lines)
    assert "256F" in udev_advice()
    assert "046D" in udev_advice()
    page = (Path(__file__).parents[2] / "docs" / "kinova.md").read_text(encoding="utf-8")
    assert all(f"\n  {rule}\n" in page for rule in UDEV_RULE.splitlines())


def test_the_command_prints_devices_and_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    """``python -m collectors.teleoperators``."""
    main()
    printed = capsys.readouterr().out
    assert "SpaceMouse" in printed
    assert "udev" in printed


def test_a_gamepad_that_is_missing_is_refused_in_one_line() -> None:
    """Nothing was plugged in."""
    with pytest.raises(InputError, match=r"plug|pygame"):
        Gen3Gamepad(Gen3GamepadConfig(index=9)).connect()
