"""The robot object's hold on its driver process: starting it, hearing from it, acting when it is gone."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from collectors.arm_interface import ArmStopped
from collectors.kinova_link import DriverSettings, Link
from collectors.kinova_process import start_process, stop_afresh
from pipeline.errors import InputError

START_WITHIN_S = 40.0  # a vendor call that finds nobody may take 10 s, and there are a few
SILENT_AFTER_S = 2.0  # without a word a driver counts as hung, and is killed
END_WITHIN_S = 8.0
END_CONNECTING_WITHIN_S = 2.0


@dataclass(frozen=True)
class Status:
    """What the driver last said: the arm's state (28,), when it was measured, and how the arm is."""

    state: np.ndarray
    at_ns: int  # time.monotonic_ns, the same clock in both processes
    wall_ns: int
    stopped: str | None
    limits: tuple[str, ...]
    twist: np.ndarray | None  # in force at the arm, as far as the driver knows


class DriverHandle:
    """A driver process from start to end. One that dies or hangs is followed by one that stops the arm."""

    def __init__(self, settings: DriverSettings, log: str | None = None) -> None:
        """Starts nothing; see :meth:`start`."""
        self._settings = settings
        self._log = log
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._news = threading.Condition()
        self._numbers = itertools.count(1)
        self._replies: dict[int, str] = {}
        self._opening: dict[str, Any] | None = None
        self._closing = False
        self._gone: str | None = None
        self._emergency = False
        self._status: Status | None = None

    @property
    def pid(self) -> int:
        """The driver's process id; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def gone(self) -> bool:
        """Whether the process has ended without being asked to."""
        return self._gone is not None

    @property
    def status(self) -> Status | None:
        """The newest status; never waits."""
        return self._status

    @property
    def stopped(self) -> str | None:
        """Why the arm takes no commands, also where there is no driver to say so; never waits."""
        if self._gone is not None:
            return self._gone
        status = self._status
        if status is not None and status.stopped is not None:
            return status.stopped
        return "emergency stop pressed; when it is safe, clear the faults" if self._emergency else None

    def start(self) -> None:
        """Starts the process and waits until it is connected. Raises ``InputError`` in one line.

        No driver is left behind, also not by Ctrl-C.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self._process, self._link = start_process(self._settings, self._log)
        threading.Thread(
            target=self._listen, args=(self._link, self._process), name="kinova-link", daemon=True
        ).start()
        with self._news:
            self._news.wait_for(
                lambda: self._opening is not None or self._gone is not None, timeout=START_WITHIN_S
            )
            opening = self._opening
            if opening is not None and opening["kind"] == "ready":
                self._news.wait_for(lambda: self._status is not None or self._gone is not None, timeout=2.0)
                if self._status is not None:
                    return
        if opening is not None and opening["kind"] == "failed":
            raise InputError(opening["error"])
        raise InputError(f"kinova_gen3: the arm's driver did not start: {self._gone or 'it said nothing'}")

    def wait_for_status(self, newer_than_ns: int, timeout_s: float) -> Status | None:
        """A status measured after ``newer_than_ns`` (monotonic); the newest there is after ``timeout_s``."""
        with self._news:
            self._news.wait_for(
                lambda: (
                    self._gone is not None
                    or (self._status is not None and self._status.at_ns > newer_than_ns)
                ),
                timeout=timeout_s,
            )
            return self._status

    def send_command(self, action: np.ndarray) -> None:
        """Sends an action (7,); a driver that does not take it will be seen to be silent."""
        if self._link is not None:
            self._link.send_command([float(v) for v in action])

    def emergency_stop(self) -> None:
        """Has the driver stop the arm at once; from any thread, without waiting.

        A driver that cannot be told is killed, which has a fresh process stop the arm.
        """
        self._emergency = True
        if self._link is not None and not self._link.send("emergency_stop") and self._process is not None:
            self._process.kill()

    def request(self, kind: str, timeout_s: float, *, keep_moving: bool = False) -> None:
        """Asks for ``clear_faults`` or ``home`` and waits for the answer. Raises ``ArmStopped``.

        ``keep_moving`` tells the driver meanwhile that somebody waits; without that it would stop the arm.
        """
        number = next(self._numbers)
        deadline = time.monotonic() + timeout_s
        if self._link is None or not self._link.send(kind, id=number):
            raise ArmStopped(self._gone or "the arm's driver takes no requests; disconnect and connect again")
        with self._news:
            while number not in self._replies:
                if self._gone is not None:
                    raise ArmStopped(self._gone)
                if time.monotonic() > deadline:
                    raise ArmStopped(
                        f"the arm's driver did not answer within {timeout_s:.0f} s; connect again"
                    )
                if keep_moving:
                    self._link.send("keep_moving", made_ns=time.monotonic_ns())
                self._news.wait(0.1)
            error = self._replies.pop(number)
        if error:
            raise ArmStopped(error)
        self._emergency = False
        self._status = None
        self.wait_for_status(0, 1.0)

    def close(self) -> None:
        """Ends the driver, which stops the arm first; harmless when there is none."""
        process, link = self._process, self._link
        if process is None or link is None or os.getpid() != self._owner:
            return  # a forked worker that ends must not end the arm's driver
        self._closing = True
        link.send("close")
        # Before it was ready nothing was commanded: an arm that does not answer need not be waited for.
        commanded = self._opening is not None and self._opening["kind"] == "ready"
        try:
            process.wait(END_WITHIN_S if commanded else END_CONNECTING_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if commanded:
                stop_afresh(self._settings, self._log)
        link.close()

    # --- the listening thread ----------------------------------------------------------------------------

    def _listen(self, link: Link, process: subprocess.Popen[bytes]) -> None:
        heard = time.monotonic()
        patience = START_WITHIN_S
        while not link.ended:
            if not link.wait(0.2):
                if time.monotonic() - heard > patience and not self._closing:
                    process.kill()
                continue
            heard = time.monotonic()
            messages = link.receive()
            for message in messages:
                if message["kind"] == "busy":
                    patience = float(message["for_s"])
                elif message["kind"] == "status":
                    patience = SILENT_AFTER_S
            with self._news:
                self._note(messages)
                self._news.notify_all()
        self._after_the_end(process)

    def _note(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            kind = message["kind"]
            if kind == "status":
                self._status = _status_from(message)
            elif kind == "reply":
                self._replies[message["id"]] = message["error"]
            elif kind in ("ready", "failed"):
                self._opening = message

    def _after_the_end(self, process: subprocess.Popen[bytes]) -> None:
        failed_to_open = self._opening is None or self._opening["kind"] == "failed"
        if self._closing or (failed_to_open and self._opening is not None):
            return
        code = process.wait()
        last_words = self._status.stopped if self._status is not None else None
        ended = "hung or was killed" if code < 0 else f"ended (status {code})"
        said = last_words or f"the arm's driver process {ended}"
        with self._news:
            self._gone = f"{said}; a fresh process is stopping the arm"
            self._news.notify_all()
        stopped = stop_afresh(self._settings, self._log)
        result = "the arm was stopped" if stopped else "the arm may still move: USE THE EMERGENCY STOP"
        with self._news:
            self._gone = f"{said}; {result}; clear the faults to connect anew"
            self._news.notify_all()


def _status_from(message: dict[str, Any]) -> Status:
    twist = message["twist"]
    return Status(
        state=np.array(message["state"], dtype=np.float64),
        at_ns=message["at_ns"],
        wall_ns=message["wall_ns"],
        stopped=message["stopped"],
        limits=tuple(message["limits"]),
        twist=None if twist is None else np.array(twist, dtype=np.float64),
    )
