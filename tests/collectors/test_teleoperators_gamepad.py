"""The gamepad, with SDL and its virtual joystick for real."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("pygame", reason="needs pygame: pip install 'lerobot[gamepad]'")

from lerobot.teleoperators.utils import TeleopEvents

from collectors.collection_loop import LoopConfig, run_episode
from collectors.operator_keys import OperatorKey
from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
from collectors.teleoperators.finding import describe_devices
from collectors.teleoperators.gamepad import Gen3Gamepad, Gen3GamepadConfig
from pipeline.episode import Frame, Outcome, action_from_dict
from pipeline.errors import InputError
from tests.collectors.virtual_gamepad import VirtualGamepad
from tests.contracts.operator_contract import DeviceContract, wait_until


@pytest.fixture
def pad() -> Iterator[VirtualGamepad]:
    """A gamepad that is plugged in; unplugged afterwards."""
    pad = VirtualGamepad()
    yield pad
    pad.unplug()


@pytest.fixture
def operator(pad: VirtualGamepad) -> Iterator[Gen3Gamepad]:
    """A connected operator with that pad."""
    operator = Gen3Gamepad(Gen3GamepadConfig(gripper_speed=4.0))
    operator.connect()
    yield operator
    operator.disconnect()


def action(operator: Gen3Gamepad) -> np.ndarray:
    """The present action (7,)."""
    return action_from_dict(operator.get_action())


def keys_of(operator: Gen3Gamepad, pad: VirtualGamepad, button: str) -> list[OperatorKey]:
    """What pressing and letting go of ``button`` gives."""
    keys: list[OperatorKey] = []
    pad.hold(button)

    def came() -> bool:
        keys.extend(operator.take_keys())
        return bool(keys)

    wait_until(came, f"{button} being seen")
    pad.hold(button, False)
    wait_until(lambda: not pad.shows(button), f"{button} being let go")
    return keys + operator.take_keys()


class TestGamepadContract(DeviceContract):
    """The suite that all operators pass."""

    @pytest.fixture
    def hand(self, pad: VirtualGamepad) -> Iterator[VirtualGamepad]:
        """The thumb on the left stick."""
        yield pad

    def make_operator(self) -> Gen3Gamepad:
        """One with the suite's release time."""
        return Gen3Gamepad(Gen3GamepadConfig(release_after_s=self.release_after_s))


@pytest.mark.parametrize(
    ("axis", "deflection", "component", "sign"),
    [
        ("lefty", -1.0, 0, 1),
        ("leftx", -1.0, 1, 1),
        ("righty", -1.0, 2, 1),
        ("rightx", -1.0, 5, 1),
        ("lefty", 1.0, 0, -1),
        ("rightx", 1.0, 5, -1),
    ],
)
def test_sticks_move_the_tool(
    operator: Gen3Gamepad, pad: VirtualGamepad, axis: str, deflection: float, component: int, sign: int
) -> None:
    """Forward, left, up and a turn to the left are positive in base; each stick moves one of them."""
    pad.move(axis, deflection)
    expected = np.zeros(6)
    expected[component] = sign * (0.2 if component < 3 else 0.8)
    wait_until(lambda: np.allclose(action(operator)[:6], expected, atol=1e-3), "moving that way")


@pytest.mark.parametrize(
    ("button", "component", "sign"), [("dpup", 4, 1), ("dpdown", 4, -1), ("dpright", 3, 1), ("dpleft", 3, -1)]
)
def test_the_pad_tilts(
    operator: Gen3Gamepad, pad: VirtualGamepad, button: str, component: int, sign: int
) -> None:
    """The other two of six degrees of freedom."""
    pad.hold(button)
    wait_until(lambda: action(operator)[component] * sign > 0.0, "tilting")


def test_both_sticks_at_once_stay_within_full_speed(operator: Gen3Gamepad, pad: VirtualGamepad) -> None:
    """A diagonal is no faster than straight ahead."""
    for axis in ("leftx", "lefty", "righty"):
        pad.move(axis, -1.0)

    def diagonal_at_full_speed() -> bool:
        linear = action(operator)[:3]
        assert np.linalg.norm(linear) < 0.2001
        return bool((linear > 0.1).all() and np.linalg.norm(linear) > 0.1999)

    wait_until(diagonal_at_full_speed, "moving diagonally")


def test_slow_mode_while_the_left_shoulder_is_held(operator: Gen3Gamepad, pad: VirtualGamepad) -> None:
    """A third of the speed; full again when it is let go."""
    pad.push(1.0)
    pad.hold("leftshoulder")
    wait_until(lambda: action(operator)[0] == pytest.approx(0.06, abs=1e-4), "slow mode")
    pad.hold("leftshoulder", False)
    wait_until(lambda: action(operator)[0] == pytest.approx(0.2, abs=1e-4), "full speed")


def test_triggers_close_and_open_from_where_the_gripper_is(
    operator: Gen3Gamepad, pad: VirtualGamepad
) -> None:
    """The first action holds what was fed back; holding a trigger goes on to the end, and no further."""
    operator.send_feedback({"gripper.pos": 0.5})
    assert action(operator)[6] == 0.5
    pad.move("righttrigger", 1.0)
    wait_until(lambda: action(operator)[6] > 0.5, "closing")
    wait_until(lambda: action(operator)[6] == 1.0, "closed")
    pad.move("righttrigger", -1.0)
    pad.move("lefttrigger", 1.0)
    wait_until(lambda: action(operator)[6] == 0.0, "open")


def test_a_take_over_does_not_jerk_the_gripper(operator: Gen3Gamepad, pad: VirtualGamepad) -> None:
    """While a policy drives the gripper moves; the person starts from there, or from its target if known."""
    operator.send_feedback({"gripper.pos": 0.0})
    assert action(operator)[6] == 0.0
    for _ in range(3):  # somebody else drives
        operator.send_feedback({"gripper.pos": 0.75})
        operator.get_teleop_events()
    assert action(operator)[6] == 0.75
    operator.send_feedback({"gripper.pos": 0.5})
    operator.get_teleop_events()
    assert action(operator)[6] == 0.75, "an object holds the gripper open: its target stays"
    for _ in range(3):
        operator.send_feedback({"gripper.pos": 0.5, "gripper.target": 1.0})
        operator.get_teleop_events()
    assert action(operator)[6] == 1.0


def test_the_right_shoulder_toggles_the_gripper(operator: Gen3Gamepad, pad: VirtualGamepad) -> None:
    """It counts as input, so it also takes over."""
    pad.hold("rightshoulder")
    wait_until(lambda: operator.get_teleop_events()[TeleopEvents.IS_INTERVENTION], "taking over")
    assert action(operator)[6] == 1.0
    pad.hold("rightshoulder", False)
    wait_until(lambda: not pad.shows("rightshoulder"), "the button being let go")
    pad.hold("rightshoulder")
    wait_until(lambda: action(operator)[6] == 0.0, "opening")


def test_every_button_says_what_it_should(operator: Gen3Gamepad, pad: VirtualGamepad) -> None:
    """Once per press."""
    assert keys_of(operator, pad, "a") == [OperatorKey.SUCCESS]
    assert keys_of(operator, pad, "x") == [OperatorKey.FAILURE]
    assert keys_of(operator, pad, "y") == [OperatorKey.DISCARD]
    assert keys_of(operator, pad, "b") == [OperatorKey.EMERGENCY_STOP]
    assert keys_of(operator, pad, "start") == [OperatorKey.START]
    assert keys_of(operator, pad, "back") == [OperatorKey.PAUSE]
    assert keys_of(operator, pad, "guide") == [OperatorKey.STOP]
    assert keys_of(operator, pad, "leftstick") == [OperatorKey.CLEAR_FAULTS]
    assert not any(operator.get_teleop_events().values())


def test_marks_reach_a_loop_that_knows_only_events(operator: Gen3Gamepad, pad: VirtualGamepad) -> None:
    """LeRobot's loops ask for no keys; what was told as an event is not told again as a key."""
    pad.hold("a")
    seen: dict[TeleopEvents, bool] = {}

    def ended() -> bool:
        seen.update(operator.get_teleop_events())
        return seen[TeleopEvents.TERMINATE_EPISODE]

    wait_until(ended, "the end of the episode")
    assert seen[TeleopEvents.SUCCESS]
    assert not seen[TeleopEvents.FAILURE]
    assert not operator.get_teleop_events()[TeleopEvents.TERMINATE_EPISODE]
    assert operator.take_keys() == []


def test_the_emergency_stop_needs_no_loop(operator: Gen3Gamepad, pad: VirtualGamepad) -> None:
    """It is passed on by the reading thread, while the loop may be stuck."""
    stopped: list[bool] = []
    operator.on_emergency_stop = lambda: stopped.append(True)
    pad.hold("b")
    wait_until(lambda: stopped == [True], "the emergency stop")


def test_an_episode_on_the_simulated_arm(operator: Gen3Gamepad, pad: VirtualGamepad) -> None:
    """Through the real loop: the arm moves while the stick is held, stops without it, and A ends it."""
    frames: list[np.ndarray] = []

    class Hand:
        """A recorder that moves the stick as the episode goes on."""

        def append(self, frame: Frame) -> None:
            """One control step."""
            frames.append(frame.action)
            if len(frames) == 2:
                pad.push(1.0)
            elif len(frames) == 12:
                pad.let_go()
            elif len(frames) == 20:
                pad.hold("a")

    with SimulatedGen3(SimulatedGen3Config(cameras=(), rate_hz=20.0)) as robot:
        before = robot.get_observation()["tool.x"]
        summary = run_episode(robot, operator, LoopConfig(rate_hz=20.0, max_steps=400), recorder=Hand())
        moved = robot.get_observation()["tool.x"] - before
    speeds = np.array(frames)[:, 0]
    assert summary.mark is Outcome.SUCCESS
    assert summary.steps < 400
    assert speeds.max() == pytest.approx(0.2, abs=1e-3)
    assert not speeds[:2].any()
    assert not speeds[-3:].any()
    assert moved == pytest.approx(speeds.sum() / 20.0, abs=0.02)


def test_an_emergency_stop_that_cannot_be_passed_on_is_still_a_key(
    operator: Gen3Gamepad, pad: VirtualGamepad
) -> None:
    """And the pad goes on being read."""

    def fails() -> None:
        raise OSError("no connection")

    operator.on_emergency_stop = fails
    assert keys_of(operator, pad, "b") == [OperatorKey.EMERGENCY_STOP]
    assert operator.lost is None


def test_a_stick_held_while_plugging_in_moves_nothing(pad: VirtualGamepad) -> None:
    """Until it has been let go once."""
    pad.push(1.0)
    operator = Gen3Gamepad(Gen3GamepadConfig())
    operator.connect()
    try:
        wait_until(lambda: operator.lost is not None, "asking to let go")
        assert not action(operator)[:6].any()
        pad.let_go()
        wait_until(lambda: operator.lost is None, "being content")
        pad.push(1.0)
        wait_until(lambda: action(operator)[0] > 0.0, "moving")
    finally:
        operator.disconnect()


def test_a_pad_that_is_not_there_is_refused(pad: VirtualGamepad) -> None:
    """Counting begins at 0."""
    with pytest.raises(InputError, match="no gamepad number 1; 1 of them"):
        Gen3Gamepad(Gen3GamepadConfig(index=1)).connect()


def test_sdl_leaves_the_environment_alone(pad: VirtualGamepad) -> None:
    """Other programs of the process may want a real display."""
    assert "SDL_VIDEODRIVER" not in os.environ


def test_the_pad_is_described(pad: VirtualGamepad) -> None:
    """For ``recap doctor``."""
    assert any("Virtual" in line for line in describe_devices())
