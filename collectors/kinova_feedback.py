"""The thread of the driver that reads the arm's feedback, at 100 Hz and more, and keeps the newest."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass

import numpy as np

from collectors.kinova_client import FeedbackClient
from collectors.kinova_connection import CallError
from collectors.kinova_faults import Stop, one_line, stop_from_feedback
from collectors.kinova_link import DriverSettings
from collectors.kinova_units import StateReader


@dataclass(frozen=True)
class Reading:
    """One feedback: the state (28,) of ``kinova_units``, when it came, and why the arm has stopped itself."""

    state: np.ndarray
    at_ns: int  # time.monotonic_ns
    wall_ns: int  # ns since 1970
    stop: Stop | None


class FeedbackReader:
    """Reads until it is closed. A call that fails leaves the latest reading as it is: its age tells."""

    def __init__(self, settings: DriverSettings, wake: socket.socket) -> None:
        """``wake`` gets a byte after every reading, so that the control loop need not poll."""
        self._settings = settings
        self._wake = wake
        self._client = FeedbackClient(settings)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kinova-feedback", daemon=True)
        self.latest: Reading | None = None
        self.problem = ""

    def open(self) -> None:
        """Connects, waits for the first reading, starts the thread. Raises InputError or CallError."""
        self._client.open()
        reader = StateReader()
        for attempt in range(20):
            try:
                self.latest = self._read(reader)
                break
            except CallError:
                if attempt == 19:
                    raise
        self._reader = reader
        self._thread.start()

    def age_s(self) -> float:
        """How old the latest reading is."""
        return float("inf") if self.latest is None else (time.monotonic_ns() - self.latest.at_ns) / 1e9

    def close(self) -> None:
        """Ends the thread and the connection; harmless when not open."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._client.close()

    def _run(self) -> None:
        period = 1.0 / self._settings.feedback_hz
        due = time.monotonic()
        while not self._closing.is_set():
            try:
                self.latest = self._read(self._reader)
            except Exception as error:
                # Whatever it is, the arm's feedback is missing: the control loop stops the arm for that.
                self.problem = one_line(str(error))
                self._closing.wait(period)
            with contextlib.suppress(OSError):
                self._wake.send(b"f")
            due = max(due + period, time.monotonic() - period)
            self._closing.wait(max(due - time.monotonic(), 0.0))

    def _read(self, reader: StateReader) -> Reading:
        feedback = self._client.read()
        at_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        base = feedback.base
        stop = stop_from_feedback(int(base.active_state), int(base.fault_bank_a), int(base.fault_bank_b))
        return Reading(reader.read(feedback), at_ns, wall_ns, stop)
