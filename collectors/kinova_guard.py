"""Stopping the arm when the control loop cannot: a watching thread, and a stop over a new connection."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import numpy as np

from collectors.kinova_client import opened
from collectors.kinova_connection import CallError
from collectors.kinova_link import DriverSettings
from collectors.kinova_process import start_stopping
from pipeline.errors import InputError


class Guard:
    """A thread that watches the control loop and acts once when it hangs."""

    def __init__(self, age_s: Callable[[], float], act: Callable[[], None], limit_s: float) -> None:
        """``age_s`` tells how long ago the loop turned; ``act`` is called when that exceeds ``limit_s``."""
        self._age_s = age_s
        self._act = act
        self._limit_s = limit_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kinova-guard", daemon=True)

    def start(self) -> None:
        """Starts to watch."""
        self._thread.start()

    def end(self) -> None:
        """Stops watching; harmless when not started."""
        self._ended.set()

    def _run(self) -> None:
        overdue = 0
        while not self._ended.wait(self._limit_s / 6):
            # Twice, since a machine that was too busy to run us may not have run the loop either.
            overdue = overdue + 1 if self._age_s() > self._limit_s else 0
            if overdue == 2:
                self._act()
                return


def stop_arm(settings: DriverSettings) -> bool:
    """Connects anew, sends Stop and a zero twist, and disconnects; whether the arm took either.

    Tries again until ``stop_within_s`` have passed: right after another process has died, the arm may still
    count that one's session as the one in control.
    """
    deadline = time.monotonic() + settings.stop_within_s
    while True:
        try:
            with opened(settings) as client:
                if _stop_with(client.stop, lambda: client.send_twist(np.zeros(6))):
                    return True
        except InputError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def stop_from_fresh_process(settings: DriverSettings) -> None:
    """Has another process stop the arm; returns at once."""
    with contextlib.suppress(OSError):
        start_stopping(settings)


def _stop_with(*calls: Callable[[], None]) -> bool:
    taken = False
    for call in calls:
        try:
            call()
            taken = True
        except CallError as error:
            taken |= error.stop.arm_stopped_itself
    return taken
