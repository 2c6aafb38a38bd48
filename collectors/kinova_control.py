"""What the driver does with the arm: when it moves, how fast, and what stops it until the operator's word.

:class:`ArmControl` holds both connections. ``kinova_driver`` calls :meth:`ArmControl.turn` more than 100
times a second; no call in it waits longer than one of the arm's short time-outs, except on the operator's
word.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import numpy as np

from collectors.kinova_client import CommandClient
from collectors.kinova_connection import CallError
from collectors.kinova_faults import Stop, StopCause
from collectors.kinova_feedback import FeedbackReader, Reading
from collectors.kinova_guard import stop_arm
from collectors.kinova_homing import HomeMotion
from collectors.kinova_limits import LimitedAction, gripper_step, limit_action
from collectors.kinova_link import DriverSettings, Mode
from collectors.kinova_units import GRIPPER, JOINTS
from pipeline.errors import InputError

TWIST_PERIOD_S = 0.025  # the arm serves high-level commands at 40 Hz
GRIPPER_PERIOD_S = 0.05
GRIPPER_STEP = 0.005  # of the stroke; less is not worth a command
HALT_PERIOD_S = 0.1
UNANSWERED_TWISTS = 3  # in a row: the arm counts as not answering
CLEAR_WITHIN_S = 3.0
CONNECT_WITHIN_S = 30.0
SILENT = "no feedback from the arm; check arm and cable, then clear the faults to connect anew"
PRESSED = "emergency stop pressed; when it is safe, clear the faults"


class ArmControl:
    """The arm as the driver's loop has it; one thread calls it, and the guard's :meth:`halt`."""

    def __init__(
        self, settings: DriverSettings, wake: socket.socket, on_busy: Callable[[float], None]
    ) -> None:
        """Connects nothing. ``wake`` gets a byte for each feedback; ``on_busy`` is told before long work."""
        self._settings = settings
        self._wake = wake
        self._on_busy = on_busy
        self._client = CommandClient(settings)
        self._feedback = FeedbackReader(settings, wake)
        self._opened = self._connection_lost = False
        self._wanted: np.ndarray | None = None  # the latest command's action (7,)
        self._made_ns = 0  # when it was made
        self._fresh = False  # whether it has not been sent yet
        self._sent_at = self._gripper_at = self._halted_at = 0.0
        self._unanswered = 0
        self._gripper = 0.0  # where the gripper was last told to go
        self._halted = True  # the arm has confirmed that it stands still
        self._limited = LimitedAction(np.zeros(7), ())
        self._home: HomeMotion | None = None
        self.stop: Stop | None = None
        self.twist: np.ndarray | None = np.zeros(6)  # in force at the arm; None: not known
        self.home_result: str | None = None  # how the last way home ended; "" is well

    @property
    def reading(self) -> Reading | None:
        """The newest feedback."""
        return self._feedback.latest

    @property
    def limits(self) -> tuple[str, ...]:
        """Which limits are at work, in words."""
        return self._limited.limits if self._wanted is not None and self.stop is None else ()

    def connect(self) -> None:
        """Opens both connections and, to drive, takes control. Raises ``InputError``; nothing moves.

        An arm in fault is worth a connection all the same: the operator clears it from here.
        """
        self._client.open()
        self._opened = True
        try:
            self._feedback.open()
            self._gripper = float(self.reading.state[GRIPPER]) if self.reading is not None else 0.0
            if self._settings.mode is Mode.DRIVE:
                self._client.take_control()
        except CallError as error:
            if not (error.stop.arm_stopped_itself or error.stop.cause is StopCause.NOT_READY):
                raise InputError(f"kinova_gen3: {self._settings.address}: {error}") from error
            self._latch(error.stop)
        except InputError:
            raise
        except ValueError as error:  # an arm that is not a Gen3
            raise InputError(f"kinova_gen3: {self._settings.address}: {error}") from error

    def close(self) -> None:
        """Zero twist and Stop, then both sessions end; harmless when not open."""
        if self._opened and not self._connection_lost:
            for _ in range(5):
                if self.halt():
                    break
        self._feedback.close()
        self._client.close()

    def command(self, action: np.ndarray, made_ns: int) -> None:
        """The latest action (7,), made at ``made_ns`` (monotonic); one older than the last is dropped."""
        if made_ns > self._made_ns:
            self._wanted, self._made_ns, self._fresh = action, made_ns, True

    def keep_moving(self, made_ns: int) -> None:
        """Somebody still waits for the arm to come home."""
        self._made_ns = max(self._made_ns, made_ns)

    def due_in_s(self) -> float:
        """How long the loop may sleep before the next :meth:`turn` unless something arrives."""
        waiting = self._sent_at + TWIST_PERIOD_S - time.monotonic()
        return min(max(waiting, 0.0), TWIST_PERIOD_S / 2) if self._fresh else TWIST_PERIOD_S / 2

    def turn(self) -> None:
        """Looks at everything once and does what is due."""
        self._watch_feedback()
        self._watch_home()
        if self.stop is not None:
            self._keep_halted()
        elif self._home is None and self._settings.mode is Mode.DRIVE:
            self._drive()

    # --- what stops the arm ------------------------------------------------------------------------------

    def _watch_feedback(self) -> None:
        reading = self.reading
        if reading is not None and reading.stop is not None:
            # The arm's own fault bits say more than the refusal that may have come first.
            if self.stop is None or (self.stop.from_refusal and reading.stop.says_more_than(self.stop)):
                self._latch(reading.stop)
        elif self._feedback.age_s() > self._settings.stop_after_s and self.stop is None:
            self._latch(Stop(StopCause.NO_ANSWER, SILENT))

    def _latch(self, stop: Stop) -> None:
        """The arm stops, and stays so until the operator clears it."""
        first = self.stop is None
        self.stop, self._wanted = stop, None
        if stop.cause is StopCause.CONNECTION_LOST and not self._connection_lost:
            self._connection_lost = True
            self._on_busy(CONNECT_WITHIN_S)
            self._client.close()
            self._halted = self._settings.mode is Mode.LOOK or stop_arm(self._settings)
        elif first:
            self._halted, self._halted_at = False, 0.0
            self._keep_halted()

    def _keep_halted(self) -> None:
        """Zero twist and Stop, again and again until the arm has confirmed one of them."""
        now = time.monotonic()
        if not self._halted and now - self._halted_at >= HALT_PERIOD_S:
            self._halted_at = now
            self._halted = self.halt()

    def halt(self) -> bool:
        """Zero twist, then Stop; whether the arm took either, or refused since it had stopped by itself.

        Sends nothing where we only look: what moves then is another program's.
        """
        if self._settings.mode is Mode.LOOK:
            return True
        confirmed = False
        for call in (lambda: self._client.send_twist(np.zeros(6)), self._client.stop):
            try:
                call()
                confirmed = True
            except CallError as error:
                confirmed |= error.stop.arm_stopped_itself
                if error.stop.cause is StopCause.CONNECTION_LOST and not self._connection_lost:
                    self._latch(error.stop)
                    return self._halted
        self.twist = np.zeros(6) if confirmed else None
        return confirmed

    def emergency_stop(self) -> None:
        """The arm's own emergency stop, then zero twist and Stop in case it was refused."""
        self.stop, self._wanted, self._halted = Stop(StopCause.EMERGENCY_STOP, PRESSED), None, False
        with contextlib.suppress(CallError):
            self._client.emergency_stop()
        self._halted = self.halt()

    # --- the operator's word -----------------------------------------------------------------------------

    def clear_faults(self) -> str:
        """Makes a stopped arm usable; "" or why not. It does not move before a command made after this.

        Raises ``CallError`` and ``InputError``.
        """
        self._on_busy(CONNECT_WITHIN_S)
        if self._connection_lost or (self.stop is not None and self.stop.needs_new_connection):
            self._reconnect()
        self._client.clear_faults()
        deadline = time.monotonic() + CLEAR_WITHIN_S
        while (standing := self._standing_fault()) is not None:
            if time.monotonic() > deadline:
                self.stop = standing
                return standing.words
            time.sleep(0.05)
        self._client.take_control()
        self.stop, self._wanted, self._made_ns = None, None, time.monotonic_ns()
        self._halted, self.twist, self._unanswered = True, np.zeros(6), 0
        return ""

    def _standing_fault(self) -> Stop | None:
        reading = self.reading
        if reading is None or self._feedback.age_s() > self._settings.zero_after_s:
            return Stop(StopCause.NO_ANSWER, SILENT)
        return reading.stop

    def _reconnect(self) -> None:
        """New objects throughout: the vendor's do not recover from a connection that was closed."""
        self._client.close()
        self._feedback.close()
        self._connection_lost = True
        self._client = CommandClient(self._settings)
        self._feedback = FeedbackReader(self._settings, self._wake)
        self._client.open()
        self._feedback.open()
        self._connection_lost = False

    def start_home(self) -> None:
        """Starts the way home; :attr:`home_result` tells its end, "" for well. Raises CallError."""
        self.home_result = None if self.stop is None else self.stop.words
        if self.stop is None:
            self._wanted, self._made_ns = None, time.monotonic_ns()
            self._home = HomeMotion(self._client)

    def _watch_home(self) -> None:
        if self._home is None:
            return
        stopped = None if self.stop is None else self.stop.words
        abandoned = self._command_age_s() > self._settings.stop_after_s
        joints = None if self.reading is None else self.reading.state[JOINTS]
        result = stopped or self._home.result(joints, abandoned)
        if result is None:
            return
        if result:
            self.halt()
        self._home, self.home_result = None, result

    # --- what moves it -----------------------------------------------------------------------------------

    def _command_age_s(self) -> float:
        return (time.monotonic_ns() - self._made_ns) / 1e9

    def _drive(self) -> None:
        now, reading = time.monotonic(), self.reading
        if self._wanted is None or reading is None or now - self._sent_at < TWIST_PERIOD_S:
            return
        age, feedback_age = self._command_age_s(), self._feedback.age_s()
        late = max(age, feedback_age) > self._settings.zero_after_s
        if late:
            what = "command" if age >= feedback_age else "feedback from the arm"
            said = f"holding still: no {what} for {max(age, feedback_age):.1f} s"
            self._limited = LimitedAction(np.array([0.0] * 6 + [self._gripper]), (said,))
        else:
            self._limited = limit_action(self._wanted, reading.state, self._settings.limits)
        self._send_twist(self._limited.action[:6], now)
        if not late and self.stop is None:
            self._send_gripper(float(self._limited.action[6]), now)
        if age > self._settings.stop_after_s and self.stop is None:
            self._wanted = None
            if not self.halt():
                self._latch(
                    Stop(StopCause.NO_ANSWER, "the arm does not answer; clear the faults to try again")
                )

    def _send_twist(self, twist: np.ndarray, now: float) -> None:
        """Sends where it is fresh, has changed, or the arm is moving: at rest the line is free for others."""
        at_rest = self.twist is not None and not self.twist.any() and not twist.any()
        if at_rest and not self._fresh:
            return
        self._sent_at = now
        try:
            self._client.send_twist(twist)
        except CallError as error:
            self.twist = None
            self._unanswered += 1
            if error.stop.cause is not StopCause.NO_ANSWER or self._unanswered >= UNANSWERED_TWISTS:
                self._latch(error.stop)
            return
        self.twist, self._fresh, self._unanswered = twist.copy(), False, 0

    def _send_gripper(self, target: float, now: float) -> None:
        elapsed = now - self._gripper_at
        if elapsed < GRIPPER_PERIOD_S or abs(target - self._gripper) < GRIPPER_STEP:
            return
        self._gripper_at = now
        step_s = min(elapsed, 2 * GRIPPER_PERIOD_S)
        position = gripper_step(self._gripper, target, step_s, self._settings.limits)
        if abs(target - position) < GRIPPER_STEP:  # what would be left is too little for a command of its own
            position = target
        try:
            self._client.send_gripper(position)
        except CallError as error:
            if error.stop.cause is not StopCause.NO_ANSWER:
                self._latch(error.stop)
            return
        self._gripper = position
