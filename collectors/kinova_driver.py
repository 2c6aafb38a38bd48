"""The process that drives a Kinova arm, and alone talks to it: ``python -m collectors.kinova_driver``.

Started by :class:`collectors.kinova_gen3.KinovaGen3`, with one end of a link (``collectors.kinova_link``).
Commands go to the arm over TCP at up to 40 Hz, at once when a fresh one comes; feedback comes over UDP at
100 Hz and more. What keeps people safe is here and not in the Python that records and infers, as that may
hang:

- no fresh command for 200 ms: zero twist; for 1 s: Stop. The age counts from when a command was *made*.
- the same for feedback; then the arm counts as stopped until the operator clears it.
- the other process ends, or the link does: zero twist, Stop, sessions closed. The same on SIGINT, SIGTERM and
  any exception here.
- speed, workspace box and joint margin, applied anew with every feedback (``collectors.kinova_limits``).
- a fault, an emergency stop, lost control of the session, a wrong servoing mode: zero twist, Stop, and words.
  Only the operator's word clears it.
- a closed connection: another one is opened for nothing but a zero twist and Stop.
- a control loop that hangs: a second thread stops the arm, if need be from a fresh process, and ends this
  one.

Not covered: this process killed (SIGKILL) *and* its parent gone at the same moment; a computer or a network
that dies; an arm that does not carry out Stop. Then the arm's own session time-out and its red button remain.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collectors.kinova_connection import CallError
from collectors.kinova_control import ArmControl
from collectors.kinova_faults import Stop, StopCause, one_line
from collectors.kinova_feedback import Reading
from collectors.kinova_guard import Guard, stop_arm, stop_from_fresh_process
from collectors.kinova_link import DriverSettings, Link, Mode, newest_command, wait_for
from pipeline.errors import InputError

STATUS_PERIOD_S = 0.05  # the longest time without a word to the robot object
HUNG_AFTER = 0.6  # of ``stop_after_s``: the loop has not turned for so long
HUNG = 70  # the exit status after the loop hung
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Driver:
    """The control loop: link, arm, and a guard. One thread runs it; ``abort`` ends a process that hangs."""

    def __init__(self, link: Link, settings: DriverSettings, abort: Callable[[int], Any] = os._exit) -> None:
        """Connects nothing; see :meth:`run`."""
        self._link = link
        self._settings = settings
        self._abort = abort
        self._wake, self._wakes = socket.socketpair()
        for end in (self._wake, self._wakes):
            end.setblocking(False)
        self._arm = ArmControl(settings, self._wakes, self._say_busy)
        self._parent = os.getppid()
        self._ending = False
        self._home_request: int | None = None
        self._reported: Reading | None = None
        self._reported_at = 0.0
        self._beat = time.monotonic()
        self._busy_until = 0.0

    def run(self) -> int:
        """Drives until the link ends or asks to; the exit status. The arm stands still afterwards."""
        guard = Guard(self._loop_age_s, self._on_hang, HUNG_AFTER * self._settings.stop_after_s)
        try:
            self._arm.connect()
            self._link.send("ready")
            self._beat = time.monotonic()
            guard.start()
            while not self._over():
                self._turn()
        except InputError as error:
            self._link.send("failed", error=str(error))
            return 2
        except Exception as error:
            traceback.print_exc()
            self._arm.stop = Stop(StopCause.DRIVER, f"the arm's driver failed ({one_line(repr(error))})")
            self._tell(at_once=True)
            return 1
        finally:
            guard.end()
            with contextlib.suppress(Exception):
                self._arm.close()
            for end in (self._wake, self._wakes):
                end.close()
        return 0

    def end(self, *_: Any) -> None:
        """Makes :meth:`run` end; a signal handler."""
        self._ending = True

    def wake_descriptor(self) -> int:
        """Where a byte wakes the loop, for ``signal.set_wakeup_fd``."""
        return self._wakes.fileno()

    def _over(self) -> bool:
        # The parent's death shows as the link's end, unless a child that it forked holds the link open.
        return self._ending or self._link.ended or os.getppid() != self._parent

    def _turn(self) -> None:
        wait_for((self._link, self._wake), self._arm.due_in_s())
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)
        self._beat, self._busy_until = time.monotonic(), 0.0
        messages = self._link.receive()
        command = newest_command(messages)
        if command is not None:
            self._arm.command(np.array(command["action"], dtype=np.float64), command["made_ns"])
        for message in messages:
            self._take(message)
            self._beat = time.monotonic()
        self._arm.turn()
        if self._home_request is not None and self._arm.home_result is not None:
            self._link.send("reply", id=self._home_request, error=self._arm.home_result)
            self._home_request = None
        self._tell()

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "emergency_stop":
            self._arm.emergency_stop()
        elif kind == "keep_moving":
            self._arm.keep_moving(message["made_ns"])
        elif kind == "close":
            self._ending = True
        elif kind in ("clear_faults", "home"):
            self._carry_out(kind, message["id"])

    def _carry_out(self, kind: str, number: int) -> None:
        """Does what was asked for, and answers; the way home is answered at its end."""
        try:
            if kind == "home":
                self._arm.start_home()
                self._home_request = number
                return
            error = self._arm.clear_faults()
        except (CallError, InputError) as failed:
            error = str(failed)
        self._tell(at_once=True)
        self._link.send("reply", id=number, error=error)

    def _tell(self, *, at_once: bool = False) -> None:
        """A status for every new reading, and in any case often enough to be known alive."""
        now, reading = time.monotonic(), self._arm.reading
        due = at_once or reading is not self._reported or now - self._reported_at > STATUS_PERIOD_S
        if reading is None or not due:
            return
        self._reported, self._reported_at = reading, now
        stop, twist = self._arm.stop, self._arm.twist
        self._link.send(
            "status",
            at_ns=reading.at_ns,
            wall_ns=reading.wall_ns,
            state=reading.state.tolist(),
            stopped=None if stop is None else stop.words,
            limits=list(self._arm.limits),
            twist=None if twist is None else twist.tolist(),
        )

    def _say_busy(self, seconds: float) -> None:
        self._busy_until = time.monotonic() + seconds
        self._tell(at_once=True)
        self._link.send("busy", for_s=seconds)

    def _loop_age_s(self) -> float:
        return time.monotonic() - max(self._beat, self._busy_until)

    def _on_hang(self) -> None:
        """From the guard's thread: the loop has not turned for too long, so it is not to be relied on."""
        stopped = False
        with contextlib.suppress(Exception):
            stopped = self._arm.halt()
        if not stopped:
            stop_from_fresh_process(self._settings)
        self._abort(HUNG)


def run_driver(link: Link) -> int:
    """Waits for the settings on the link, then drives, or stops the arm and ends; the exit status."""
    while not link.ended:
        link.wait(1.0)
        messages = link.receive()
        if messages:  # the first is the settings; nothing else is sent before "ready"
            values = {name: value for name, value in messages[0].items() if name != "kind"}
            return _run(link, DriverSettings.from_dict(values))
    return 0


def _run(link: Link, settings: DriverSettings) -> int:
    if settings.mode is Mode.STOP:
        stopped = stop_arm(settings)
        link.send("reply", id=0, error="" if stopped else "the arm could not be stopped from here")
        return 0 if stopped else 1
    driver = Driver(link, settings)
    signal.set_wakeup_fd(driver.wake_descriptor())
    for number in _ENDING_SIGNALS:
        signal.signal(number, driver.end)
    return driver.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's entry point; ``--link`` names the descriptor of its end of the link."""
    parser = argparse.ArgumentParser(description="Drives a Kinova arm for the robot object that started it.")
    parser.add_argument("--link", type=int, required=True, help="descriptor of a SOCK_SEQPACKET socket")
    link = Link(socket.socket(fileno=parser.parse_args(arguments).link))
    try:
        return run_driver(link)
    finally:
        link.close()


if __name__ == "__main__":
    sys.exit(main())
