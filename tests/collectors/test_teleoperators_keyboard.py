"""The keyboard, through a real pseudo-terminal that repeats held keys as terminals do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lerobot.teleoperators.utils import TeleopEvents

from collectors.operator_keys import KEYS, OperatorKey, TerminalInput, TerminalUser
from collectors.teleoperators.held_keys import FIRST_DEFLECTION, HOLD_S, RAMP_S, TAP_S, HeldKeys
from collectors.teleoperators.keyboard import (
    AXIS_KEYS,
    CLOSE_KEY,
    MOVE_HELP,
    OPEN_KEY,
    SLOW_KEY,
    TOGGLE_KEY,
    Gen3Keyboard,
    Gen3KeyboardConfig,
)
from pipeline.episode import action_from_dict
from pipeline.errors import InputError
from tests.collectors.terminal import Terminal
from tests.contracts.operator_contract import DeviceContract, wait_until

UP, LEFT, PAGE_UP = b"\x1b[A", b"\x1b[D", b"\x1b[5~"
REPEAT_S = 0.03


class Finger:
    """A finger that holds one key of a terminal, which repeats it."""

    def __init__(self) -> None:
        """A terminal and a reader of it, as a collection loop has them."""
        self.terminal = Terminal()
        self.keys = TerminalInput(fd=self.terminal.fd)
        self.keys.__enter__()
        self._up = threading.Event()
        self._held: threading.Thread | None = None

    def hold(self, data: bytes) -> None:
        """Holds the key that sends ``data``."""
        self.let_go()
        self._up.clear()
        self._held = threading.Thread(target=self._repeat, args=(data,), daemon=True)
        self._held.start()

    def _repeat(self, data: bytes) -> None:
        self.terminal.type(data)
        while not self._up.wait(REPEAT_S):
            self.terminal.type(data)

    def push(self, share: float) -> None:
        """Holds the key for forward."""
        self.hold(UP)

    def let_go(self) -> None:
        """Lifts the finger."""
        self._up.set()
        if self._held is not None:
            self._held.join()
            self._held = None

    def unplug(self) -> None:
        """Closes the terminal's window."""
        self.let_go()
        self.terminal.hang_up()
        wait_until(lambda: not self.keys.is_reading, "the reader noticing")

    def plug_in(self) -> None:
        """A closed window does not come back."""
        raise NotImplementedError

    def close(self) -> None:
        """Puts everything away."""
        self.let_go()
        self.keys.__exit__(None, None, None)
        self.terminal.close()


@pytest.fixture
def finger() -> Iterator[Finger]:
    """A finger on a terminal."""
    finger = Finger()
    yield finger
    finger.close()


@pytest.fixture
def operator(finger: Finger) -> Iterator[Gen3Keyboard]:
    """A connected operator that shares that terminal."""
    operator = Gen3Keyboard(Gen3KeyboardConfig(gripper_speed=4.0))
    operator.use_terminal(finger.keys)
    operator.connect()
    yield operator
    operator.disconnect()


class TestKeyboardContract(DeviceContract):
    """The suite that all operators pass."""

    has_deflection = False
    comes_back = False

    @pytest.fixture
    def hand(self, finger: Finger) -> Iterator[Finger]:
        """The finger on the arrow key."""
        self.finger = finger
        yield finger

    def make_operator(self) -> Gen3Keyboard:
        """One with the suite's release time, on the suite's terminal."""
        operator = Gen3Keyboard(Gen3KeyboardConfig(release_after_s=self.release_after_s))
        operator.use_terminal(self.finger.keys)
        return operator


@pytest.mark.parametrize(
    ("key", "component", "sign"),
    [
        (UP, 0, 1),
        (b"\x1b[B", 0, -1),
        (LEFT, 1, 1),
        (b"\x1b[C", 1, -1),
        (PAGE_UP, 2, 1),
        (b"r", 2, 1),
        (b"v", 2, -1),
        (b"o", 3, 1),
        (b"i", 4, 1),
        (b"j", 5, 1),
        (b"l", 5, -1),
    ],
)
def test_keys_move_the_tool(
    operator: Gen3Keyboard, finger: Finger, key: bytes, component: int, sign: int
) -> None:
    """All six degrees of freedom, in both directions."""
    finger.hold(key)
    wait_until(lambda: action_from_dict(operator.get_action())[component] * sign > 0.0, "moving")


def test_gripper_keys_and_slow_mode(operator: Gen3Keyboard, finger: Finger) -> None:
    """x closes while held; g opens at once what is closed; tab is slow until it is pressed again."""
    finger.hold(b"x")
    wait_until(lambda: operator.get_action()["gripper.target"] == 1.0, "closing")
    finger.let_go()
    finger.terminal.type(b"g")
    wait_until(lambda: operator.get_action()["gripper.target"] == 0.0, "opening")
    finger.terminal.type(b"\t")
    finger.hold(UP)
    wait_until(lambda: operator.get_action()["tool.vx"] == pytest.approx(0.06), "full speed in slow mode")


def test_a_shared_terminal_tells_its_owner_and_nobody_twice(operator: Gen3Keyboard, finger: Finger) -> None:
    """The loop's own reader has the operator's keys; the arm's keys mean nothing to it."""
    assert isinstance(operator, TerminalUser)
    finger.terminal.type(b"s" + UP + b"g")
    wait_until(lambda: operator.get_action()["gripper.target"] == 1.0, "the last key")
    assert finger.keys.take_keys() == [OperatorKey.SUCCESS]
    assert operator.take_keys() == []
    assert not operator.get_teleop_events()[TeleopEvents.TERMINATE_EPISODE]


def test_an_emergency_stop_lets_go_of_all_keys(operator: Gen3Keyboard, finger: Finger) -> None:
    """The arm must not move on when faults are cleared within a key's hold time."""
    finger.hold(UP)
    wait_until(lambda: operator.get_action()["tool.vx"] > 0.0, "moving")
    finger.let_go()
    finger.terminal.type(UP + b" s")
    wait_until(lambda: OperatorKey.SUCCESS in finger.keys.take_keys(), "the key after it")
    assert operator.get_action()["tool.vx"] == 0.0


def test_alone_it_reads_the_terminal_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under LeRobot's own commands: keys become events, and the emergency stop is passed on."""
    terminal = Terminal()
    with open(terminal.fd, closefd=False) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        operator = Gen3Keyboard(Gen3KeyboardConfig())
        stopped: list[int] = []
        operator.on_emergency_stop = lambda: stopped.append(1)
        with operator:
            terminal.type(b" f")
            wait_until(lambda: stopped == [1], "the emergency stop")
            wait_until(lambda: operator.get_teleop_events()[TeleopEvents.FAILURE], "the mark")
        assert not operator.is_connected
    terminal.close()


def test_without_a_terminal_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a service there is none."""
    with Path("/dev/null").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(InputError, match="needs a terminal"):
            Gen3Keyboard(Gen3KeyboardConfig()).connect()


def test_no_key_has_two_meanings() -> None:
    """A key that moves the arm must not end an episode, and the help names what moves."""
    moving = [key for pair in AXIS_KEYS for keys in pair for key in keys]
    moving += [CLOSE_KEY, OPEN_KEY, TOGGLE_KEY, SLOW_KEY]
    assert len(set(moving)) == len(moving)
    assert not set(moving) & set(KEYS)
    assert "\n" not in MOVE_HELP


def test_a_tap_nudges_and_holding_speeds_up() -> None:
    """Until the terminal repeats, nobody knows that a key is held: so a tap is short."""
    held = HeldKeys()
    held.press("up", 0.0)
    assert held.deflection("up", 0.5 * TAP_S) < FIRST_DEFLECTION + 0.1
    assert held.deflection("up", TAP_S) == 0.0
    now = 0.5  # a terminal begins to repeat after about half a second
    while now < 0.5 + RAMP_S + 0.1:
        held.press("up", now)
        now += REPEAT_S
    assert held.deflection("up", now) == 1.0
    assert held.deflection("up", now + HOLD_S) == 0.0


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.sampled_from(["up", "left"])), max_size=60))
def test_without_repeats_everything_always_stops(presses: list[tuple[float, str]]) -> None:
    """Whatever was typed before, and never faster than full."""
    held, now = HeldKeys(), 0.0
    for gap, key in presses:
        now += gap
        held.press(key, now)
        assert FIRST_DEFLECTION <= held.deflection(key, now) <= 1.0
    for key in ("up", "left"):
        assert held.deflection(key, now + HOLD_S) == 0.0
