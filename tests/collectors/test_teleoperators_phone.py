"""The phone: its motion from poses, and LeRobot's server with a phone's messages over the real web socket."""

from __future__ import annotations

import importlib.util
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lerobot.utils.rotation import Rotation

from collectors.teleoperators.phone import Gen3Phone, Gen3PhoneConfig
from collectors.teleoperators.phone_motion import STALE_AFTER_S, PhoneMotion, PhonePose
from pipeline.episode import action_from_dict
from pipeline.errors import InputError
from tests.contracts.operator_contract import DeviceContract, Hand, wait_until

INSTALLED = all(importlib.util.find_spec(name) for name in ("teleop", "hebi", "websockets"))
needs_phone = pytest.mark.skipif(not INSTALLED, reason="needs LeRobot's phone: pip install 'lerobot[phone]'")
PERIOD_S = 1 / 60


def pose(x: float = 0.0, yaw: float = 0.0, *, touched: bool = True) -> PhonePose:
    """A phone at ``x`` m, turned by ``yaw`` rad."""
    return PhonePose(np.array([x, 0.0, 0.0]), Rotation.from_rotvec(np.array([0.0, 0.0, yaw])), touched)


def test_the_hand_s_velocity_comes_out() -> None:
    """0.1 m/s and 0.5 rad/s, after the filter has settled; and the way is the hand's own way."""
    motion, travelled = PhoneMotion(), np.zeros(6)
    for i in range(120):
        touched, twist = motion.update(pose(0.1 * i * PERIOD_S, 0.5 * i * PERIOD_S), i * PERIOD_S)
        travelled += twist * PERIOD_S
    assert touched
    assert np.allclose(twist, [0.1, 0, 0, 0, 0, 0.5], atol=1e-6)
    assert travelled[0] == pytest.approx(0.2, abs=0.02)


def test_only_what_moves_while_touched_counts() -> None:
    """Putting the phone elsewhere between two touches moves nothing: the reference is latched anew."""
    motion = PhoneMotion()
    motion.update(pose(0.0), 0.0)
    motion.update(pose(0.01), 0.02)
    touched, twist = motion.update(pose(0.02, touched=False), 0.04)
    assert not touched
    assert not twist.any()
    motion.update(pose(0.9, 2.0, touched=False), 0.06)
    touched, twist = motion.update(pose(1.0, 3.0), 0.08)
    assert touched
    assert not twist.any()


def test_a_stalled_connection_opens_the_clutch() -> None:
    """After 100 ms the motion fades; after 250 ms it is over, and what comes then starts anew."""
    motion = PhoneMotion()
    for i in range(30):
        motion.update(pose(0.2 * i * PERIOD_S), i * PERIOD_S)
    last = 29 * PERIOD_S
    assert motion.update(None, last + 0.9 * STALE_AFTER_S)[0]
    touched, twist = motion.update(None, last + 1.01 * STALE_AFTER_S)
    assert not touched
    assert not twist.any()
    assert not motion.update(pose(5.0), last + 1.0)[1].any()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.floats(0.003, 0.4), st.floats(-1, 1), st.floats(-3, 3), st.sampled_from("tun")),
        max_size=40,
    )
)
def test_whatever_comes_it_stays_finite_and_untouched_is_zero(
    messages: list[tuple[float, float, float, str]],
) -> None:
    """Touched, untouched and no messages in any order."""
    motion, now = PhoneMotion(), 0.0
    for gap, x, yaw, kind in messages:
        now += gap
        touched, twist = motion.update(None if kind == "n" else pose(x, yaw, touched=kind == "t"), now)
        assert np.isfinite(twist).all()
        assert touched or not twist.any()
        assert not (kind == "u" and touched)


@pytest.mark.parametrize(
    "bad", [{"phone_os": "symbian"}, {"scale": 0.0}, {"scale": math.nan}, {"port": 0}, {"port": 70000}]
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    """When they are given."""
    with pytest.raises(InputError, match=f"gen3_phone: {next(iter(bad))} is "):
        Gen3PhoneConfig(**bad)


@pytest.mark.skipif(INSTALLED, reason="LeRobot's phone is installed")
def test_without_the_extra_it_says_what_to_install() -> None:
    """In one line."""
    with pytest.raises(InputError, match=r"pip install 'lerobot\[phone\]'"):
        Gen3Phone(Gen3PhoneConfig()).connect()


class PhoneOnTheNetwork:
    """Talks to the served page's web socket as the page does, 60 times a second; forward when pushed."""

    full_speed = 0.4  # m/s of the hand at full deflection; beyond the tool's limit, as a hand may be

    def __init__(self, port: int) -> None:
        """Nobody holds it yet; it sends from ``plug_in`` on."""
        self.port = port
        self._speed = 0.0
        self._touched = False
        self._buttons = {"reservedButtonA": False, "reservedButtonB": False}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def push(self, share: float) -> None:
        """Touches the screen and moves forward."""
        self._speed = share * self.full_speed
        self._touched = True

    def touch_only(self) -> None:
        """Touches the screen and holds still, as still as a hand is."""
        self.push(1e-6)

    def press(self, button: str, down: bool) -> None:
        """Holds one of the page's two buttons."""
        self._buttons[button] = down

    def let_go(self) -> None:
        """Lifts the finger."""
        self._touched = False

    def plug_in(self) -> None:
        """Connects."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """The connection breaks."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _talk(self) -> None:
        from websockets.sync.client import connect

        trusting = ssl._create_unverified_context()  # the page's certificate is its own
        url = f"wss://127.0.0.1:{self.port}/ws"
        while not self._stop.is_set():
            with suppress(OSError), connect(url, ssl=trusting) as link:
                self._send(link)

    def _send(self, link: Any) -> None:
        forward = 0.0
        for number in count():
            if self._stop.wait(PERIOD_S):
                return
            forward += self._speed * PERIOD_S
            tremor = 1e-9 * (number % 7)
            # In the page's axes forward is -z; a hand never holds quite still.
            place = {"x": tremor, "y": 0.0, "z": -forward}
            turn = {"w": 1.0, "x": 0.0, "y": 0.0, "z": 0.0}
            data = {"move": self._touched, "position": place, "orientation": turn, "scale": 1.0}
            link.send(json.dumps({"type": "pose", "data": data | self._buttons}))


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@needs_phone
class TestPhoneContract(DeviceContract):
    """The suite that all operators pass."""

    has_deflection = False

    @pytest.fixture
    def hand(self) -> Iterator[PhoneOnTheNetwork]:
        """A phone that is connected, once the page is served."""
        self.phone = PhoneOnTheNetwork(free_port())
        self.phone.plug_in()
        yield self.phone
        self.phone.unplug()

    def make_operator(self) -> Gen3Phone:
        """One with the suite's release time, at the phone's port."""
        return Gen3Phone(
            Gen3PhoneConfig(port=self.phone.port, release_after_s=self.release_after_s, gripper_speed=4.0)
        )

    def test_without_a_device_connecting_is_refused(self, hand: Hand) -> None:
        """There is always a page to serve; what can be missing is a free port for it."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            operator = Gen3Phone(Gen3PhoneConfig(port=other.getsockname()[1]))
            with pytest.raises(InputError, match="choose another port"):
                operator.connect()
            assert not operator.is_connected

    def test_the_page_s_buttons_move_the_gripper(self, operator: Gen3Phone, hand: PhoneOnTheNetwork) -> None:
        """A closes, B opens."""
        hand.press("reservedButtonA", True)
        wait_until(lambda: action_from_dict(operator.get_action())[6] == 1.0, "closing")
        hand.press("reservedButtonA", False)
        hand.press("reservedButtonB", True)
        wait_until(lambda: action_from_dict(operator.get_action())[6] == 0.0, "opening")

    def test_a_touch_alone_takes_the_arm(self, operator: Gen3Phone, hand: PhoneOnTheNetwork) -> None:
        """To hold the arm still is to drive, too."""
        hand.touch_only()
        wait_until(lambda: self.drives(operator), "taking over")
        assert self.speed(operator) < 1e-3


class Bank:
    """A bank of the app's inputs, as HEBI's feedback has it."""

    def __init__(self, values: dict[int, float]) -> None:
        """``values`` by channel."""
        self._values = values

    def has_float(self, channel: int) -> bool:
        """Whether there is a value."""
        return channel in self._values

    has_int = has_float

    def get_float(self, channel: int) -> float:
        """The value."""
        return self._values[channel]

    def get_int(self, channel: int) -> int:
        """The value."""
        return int(self._values[channel])


class AppOnAnIPhone:
    """Stands where HEBI's group of modules stands: gives the feedback of an iPhone that moves steadily."""

    def __init__(self) -> None:
        """In a hand that moves; B1 is down, as LeRobot wants it to begin with."""
        self.silent = False
        self.hold(b1=True, a3=0.0)
        self._started = time.monotonic()

    def hold(self, *, b1: bool, a3: float) -> None:
        """How the clutch and the gripper's slider stand."""
        self.io = SimpleNamespace(a=Bank({3: a3}), b=Bank({1: int(b1)}))

    def get_next_feedback(self) -> list[Any] | None:
        """One message; ``None`` when none came, as HEBI has it."""
        if self.silent:
            return None
        moved = 0.1 * (time.monotonic() - self._started)
        position = np.array([0.0, -moved, 0.0])  # forward, as LeRobot maps it
        return [SimpleNamespace(ar_position=position, ar_orientation=np.array([1.0, 0, 0, 0]), io=self.io)]


@needs_phone
def test_an_iphone_moves_the_tool_and_may_fall_silent() -> None:
    """From HEBI's messages on, through LeRobot's class for it."""
    from lerobot.teleoperators.phone.config_phone import PhoneConfig, PhoneOS
    from lerobot.teleoperators.phone.teleop_phone import IOSPhone

    app, phone = AppOnAnIPhone(), IOSPhone(PhoneConfig(phone_os=PhoneOS.IOS))
    phone._group = app
    phone.calibrate()
    app.hold(b1=False, a3=0.0)
    operator = Gen3Phone(Gen3PhoneConfig(phone_os="ios"))
    operator._phone_device._phone = phone
    with operator:
        assert not action_from_dict(operator.get_action())[:6].any()
        app.hold(b1=True, a3=1.0)
        wait_until(lambda: operator.get_action()["tool.vx"] > 0.05, "moving forward")
        wait_until(lambda: operator.get_action()["gripper.target"] == 1.0, "closing")
        app.silent = True
        wait_until(lambda: operator.lost is not None, "saying that it is silent")
        assert "silent" in str(operator.lost)
        assert not action_from_dict(operator.get_action())[:6].any()
