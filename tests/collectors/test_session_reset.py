"""Between two episodes: the arm never starts by itself as soon as a fault is cleared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from collectors.operator_keys import KeysFromNow, OperatorKey
from collectors.session_reset import KeyQueue, Reset
from tests.collectors.moving_arm import Hand, MovingArm

START, _, _, _, PAUSE, STOP, EMERGENCY_STOP, CLEAR = OperatorKey
AUTO_START_S = 0.4


class Pressed:
    """Keys that lie there until they are taken."""

    def __init__(self, *keys: OperatorKey) -> None:
        """From the start on."""
        self.keys = list(keys)

    def take_keys(self) -> list[OperatorKey]:
        """All of them."""
        keys, self.keys = self.keys, []
        return keys


class SlowToClear(MovingArm):
    """Clearing takes its time, as on a real arm; what ``meanwhile`` says is pressed by then."""

    def __init__(self, keys: Pressed, meanwhile: tuple[OperatorKey, ...] = (), seconds: float = 0.5) -> None:
        """In good order."""
        super().__init__()
        self.cleared_at_s = 0.0
        self._keys, self._meanwhile, self._seconds = keys, meanwhile, seconds

    def clear_faults(self) -> None:
        """Takes commands again after a while."""
        time.sleep(self._seconds)
        self._keys.keys += self._meanwhile
        super().clear_faults()
        self.cleared_at_s = time.monotonic()


def reset_of(arm: MovingArm, keys: Any, each_period: Callable[[], None] = lambda: None) -> Reset:
    """The time between two episodes, 50 periods a second."""
    quiet: list[str] = []
    return Reset(
        arm,
        Hand(),
        KeyQueue([keys]),
        50.0,
        problem=quiet.append,
        message=quiet.append,
        each_period=lambda _: each_period(),
    )


@pytest.mark.parametrize("how", ["a fault", "a stop that is cleared in the same period"])
def test_an_automatic_start_waits_again_from_when_a_slow_arm_takes_commands(how: str) -> None:
    keys = Pressed()
    arm = SlowToClear(keys)  # longer than the automatic start waits
    if how == "a fault":
        arm.fault_at = 3

    def press() -> None:
        if arm.stopped is not None:
            keys.keys = [CLEAR]
        elif how != "a fault" and len(arm.sent) == 3:
            keys.keys = [EMERGENCY_STOP, CLEAR]

    assert reset_of(arm, keys, press).wait_for_start(AUTO_START_S)
    assert arm.cleared_at_s, "it was stopped"
    assert time.monotonic() - arm.cleared_at_s >= AUTO_START_S


@pytest.mark.parametrize("pressed", [(START,), (START, START)])
def test_a_start_that_is_pressed_while_a_fault_is_cleared_starts_nothing(
    pressed: tuple[OperatorKey, ...],
) -> None:
    """Pressed twice in impatience neither; a stop that was pressed meanwhile counts."""
    keys = Pressed()
    arm = SlowToClear(keys, pressed, seconds=0.05)
    arm.fault_at = 3

    def press() -> None:
        if arm.stopped is not None:
            keys.keys = [CLEAR]
        elif arm.cleared_at_s and len(arm.sent) > 10:
            keys.keys = [STOP]

    reset = reset_of(arm, keys, press)
    assert not reset.wait_for_start(None) and reset.stop_asked and len(arm.sent) > 10
    keys = Pressed()
    arm = SlowToClear(keys, (*pressed, STOP), seconds=0.0)
    reset = reset_of(arm, keys)
    reset.arm_stopped("fault")
    keys.keys = [CLEAR]
    assert not reset.wait_for_start(None) and reset.stop_asked and reset.stopped is None


def test_a_stop_while_the_policy_looks_takes_the_start_back_also_when_it_is_cleared() -> None:
    keys = Pressed(START)
    arm = SlowToClear(keys, seconds=0.0)
    reset = reset_of(arm, keys)
    assert reset.wait_for_start(None)
    keys.keys = [EMERGENCY_STOP, CLEAR]
    assert not reset.wait_for_plan(lambda _: True, timeout_s=20.0)
    assert reset.stopped is None and arm.emergency_stops == 1
    keys.keys = [START]
    assert reset.wait_for_start(None) and reset.wait_for_plan(lambda _: True, timeout_s=20.0)


def test_a_pause_from_before_the_arm_was_ready_holds_off_the_automatic_start() -> None:
    keys, arm = Pressed(PAUSE, START), MovingArm()

    def press() -> None:
        if len(arm.sent) == 25:
            keys.keys = [STOP]

    assert not reset_of(arm, KeysFromNow(keys), press).wait_for_start(0.1), "half a second later"
