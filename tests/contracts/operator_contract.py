"""What every operator must do: one suite, a subclass per operator."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import pytest
from lerobot.teleoperators import Teleoperator
from lerobot.teleoperators.utils import TeleopEvents
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from collectors.teleoperators.device_operator import DeviceOperator
from pipeline.episode import ACTION_NAMES, action_from_dict
from pipeline.errors import InputError

GENEROUS_S = 10.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for ``condition`` to come true; fails, saying ``what`` did not happen."""
    end = time.monotonic() + GENEROUS_S
    while not condition():
        assert time.monotonic() < end, f"did not happen in {GENEROUS_S:.0f} s: {what}"
        time.sleep(0.005)


class OperatorContract(ABC):
    """What people and scripts have in common. Subclass as ``Test…`` and give the fixture ``operator``."""

    @pytest.fixture
    @abstractmethod
    def operator(self) -> Iterator[Any]:
        """A connected operator, disconnected afterwards."""

    def test_its_action_is_the_robots(self, operator: Teleoperator) -> None:
        """The loop passes actions on as they are."""
        assert operator.action_features == dict.fromkeys(ACTION_NAMES, float)
        assert list(operator.get_action()) == list(ACTION_NAMES)

    def test_its_actions_are_numbers(self, operator: Teleoperator) -> None:
        """Not a number would be sent to an arm."""
        for _ in range(5):
            action = action_from_dict(operator.get_action())
            assert np.isfinite(action).all()
            assert 0.0 <= action[6] <= 1.0

    def test_it_says_who_drives_and_how_the_episode_ends(self, operator: Any) -> None:
        """Nothing of it is said when nothing was pressed."""
        events = operator.get_teleop_events()
        assert events[TeleopEvents.IS_INTERVENTION] is False
        assert events[TeleopEvents.TERMINATE_EPISODE] is False

    def test_disconnecting_twice_is_harmless(self, operator: Teleoperator) -> None:
        """A clean-up may run after another."""
        operator.disconnect()
        operator.disconnect()


class Hand(Protocol):
    """What a test does to a device in place of a person: through the lowest layer that can be reached."""

    def push(self, share: float) -> None:
        """Pushes the forward axis by a share (−1..1) of its whole way, and holds it there."""
        ...

    def let_go(self) -> None:
        """Takes the hand off."""
        ...

    def unplug(self) -> None:
        """Pulls the device's plug (cuts its connection)."""
        ...

    def plug_in(self) -> None:
        """Puts it back."""
        ...


class DeviceContract(OperatorContract):
    """What every hand-held device does. ``release_after_s`` of the operators made is 0.3 s."""

    release_after_s = 0.3
    max_linear_speed = 0.2  # m/s
    has_deflection = True  # a key has none
    comes_back = True  # whether it can be plugged in again

    @abstractmethod
    def make_operator(self) -> DeviceOperator:
        """A new operator, not connected."""

    @pytest.fixture
    @abstractmethod
    def hand(self) -> Iterator[Hand]:
        """A hand on the device, which is plugged in."""

    @pytest.fixture
    def operator(self, hand: Hand) -> Iterator[DeviceOperator]:
        """A connected operator, disconnected afterwards."""
        operator = self.make_operator()
        operator.connect()
        yield operator
        operator.disconnect()

    @staticmethod
    def action(operator: DeviceOperator) -> np.ndarray:
        """The present action (7,), checked to be finite."""
        action = action_from_dict(operator.get_action())
        assert np.isfinite(action).all()
        return action

    def speed(self, operator: DeviceOperator) -> float:
        """Length of the linear twist, m/s."""
        return float(np.linalg.norm(self.action(operator)[:3]))

    @staticmethod
    def drives(operator: DeviceOperator) -> bool:
        """Whether the person has the arm."""
        return operator.get_teleop_events()[TeleopEvents.IS_INTERVENTION]

    def test_untouched_it_asks_for_nothing(self, operator: DeviceOperator) -> None:
        """Exactly zero, and the gripper stays as it is fed back."""
        operator.send_feedback({"gripper.pos": 0.375})
        for _ in range(10):
            assert self.action(operator).tolist() == [0.0] * 6 + [0.375]
            assert not self.drives(operator)

    def test_pushed_forward_it_moves_forward(self, operator: DeviceOperator, hand: Hand) -> None:
        """And not sideways."""
        hand.push(0.7)

        def forward_only() -> bool:
            action = self.action(operator)
            return bool(action[0] > 0.0 and np.allclose(action[1:6], 0.0, atol=0.02))

        wait_until(forward_only, "moving forward")

    def test_full_deflection_is_at_most_full_speed(self, operator: DeviceOperator, hand: Hand) -> None:
        """It comes near it, and never above."""
        hand.push(1.0)
        fastest = 0.0

        def near_full_speed() -> bool:
            nonlocal fastest
            fastest = max(fastest, self.speed(operator))
            return fastest > 0.9 * self.max_linear_speed

        wait_until(near_full_speed, "full speed")
        for _ in range(20):
            assert self.speed(operator) <= self.max_linear_speed * (1 + 1e-6)

    def test_within_the_dead_zone_nothing_moves(self, operator: DeviceOperator, hand: Hand) -> None:
        """Sticks never rest at exactly zero."""
        if not self.has_deflection:
            pytest.skip("keys have no deflection")
        hand.push(0.5 * operator.config.dead_zone)
        time.sleep(0.1)
        assert self.speed(operator) == 0.0
        assert not self.drives(operator)

    def test_letting_go_stops(self, operator: DeviceOperator, hand: Hand) -> None:
        """Exactly zero, as soon as the device says so, and it stays zero."""
        hand.push(0.8)
        wait_until(lambda: self.speed(operator) > 0.0, "moving")
        hand.let_go()
        wait_until(lambda: not self.action(operator)[:6].any(), "stopping")
        time.sleep(0.05)
        assert not self.action(operator)[:6].any()

    def test_touching_takes_over_and_letting_go_hands_back_later(
        self, operator: DeviceOperator, hand: Hand
    ) -> None:
        """At once the one; the other after ``release_after_s`` without input."""
        hand.push(0.8)
        wait_until(lambda: self.drives(operator), "taking over")
        time.sleep(1.2 * self.release_after_s)
        wait_until(lambda: self.drives(operator), "still driving: it was never let go")
        hand.let_go()
        last_moved = time.monotonic()

        def stopped() -> bool:
            nonlocal last_moved
            before = time.monotonic()
            moves = bool(self.action(operator)[:6].any())
            last_moved = before if moves else last_moved
            return not moves

        wait_until(stopped, "stopping")
        wait_until(lambda: not self.drives(operator), "handing back")
        assert time.monotonic() - last_moved >= self.release_after_s

    def test_unplugged_in_use_it_stops_and_says_so(self, operator: DeviceOperator, hand: Hand) -> None:
        """And works again when it is back, from rest."""
        hand.push(0.8)
        wait_until(lambda: self.speed(operator) > 0.0, "moving")
        wait_until(lambda: operator.lost is None, "all being well")
        hand.unplug()
        wait_until(lambda: not self.action(operator)[:6].any(), "stopping")
        wait_until(lambda: operator.lost is not None, "saying that it is lost")
        assert "\n" not in str(operator.lost)
        wait_until(lambda: not self.drives(operator), "handing back")
        assert not self.action(operator)[:6].any()
        if self.comes_back:
            hand.let_go()
            hand.plug_in()
            wait_until(lambda: operator.lost is None, "being found again")
            assert not self.action(operator)[:6].any()
            hand.push(0.8)
            wait_until(lambda: self.speed(operator) > 0.0, "moving again")

    def test_without_a_device_connecting_is_refused(self, hand: Hand) -> None:
        """In one line that says what to do."""
        hand.unplug()
        operator = self.make_operator()
        with pytest.raises(InputError) as refused:
            operator.connect()
        assert "\n" not in str(refused.value)
        assert not operator.is_connected
        operator.disconnect()

    def test_connecting_twice_is_an_error(self, operator: DeviceOperator) -> None:
        """Two readers of one device would each miss half of it."""
        with pytest.raises(DeviceAlreadyConnectedError):
            operator.connect()

    def test_it_connects_again(self, operator: DeviceOperator, hand: Hand) -> None:
        """After a disconnect, as between two sessions."""
        operator.disconnect()
        operator.connect()
        hand.push(0.8)
        wait_until(lambda: self.speed(operator) > 0.0, "moving")

    def test_not_connected_it_gives_no_action(self, hand: Hand) -> None:
        """The caller forgot ``connect``."""
        operator = self.make_operator()
        with pytest.raises(DeviceNotConnectedError):
            operator.get_action()
        with pytest.raises(DeviceNotConnectedError):
            operator.get_teleop_events()
        assert operator.take_keys() == []
