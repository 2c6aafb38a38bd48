"""A thread that reads one device, so that a slow or dead one never holds up the control loop.

It also makes a device safe to lose: when it is unplugged, or its driver hangs, its controls count as
untouched at once; it is opened again when it is back, and believed only after its axes have been seen at
rest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from collectors.teleoperators.device_input import NEUTRAL, DeviceAbsent, DeviceInput, PolledDevice, Press
from pipeline.errors import InputError

_log = logging.getLogger(__name__)

HANGS_AFTER_S = 0.25
"""A reading that is older than this is no reading; a poll takes 20 ms."""
RETRY_EVERY_S = 0.5


class DeviceThread:
    """Reads ``device`` from ``start`` to ``stop``; all other methods may be called from any thread."""

    def __init__(
        self,
        device: PolledDevice,
        *,
        name: str,
        rest: float,
        on_press: Callable[[Press], None],
        open_within_s: float = 10.0,
    ) -> None:
        """``rest`` is the deflection up to which an axis is at rest.

        ``on_press`` is called from the reading thread for every press, at once.
        """
        self._device = device
        self._name = name
        self._rest = rest
        self._on_press = on_press
        self._open_within_s = open_within_s
        self._opened = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failed: str | None = None
        self._lost: str | None = None
        self._trusted = False
        self._latest: tuple[float, DeviceInput] = (time.monotonic(), NEUTRAL)

    @property
    def lost(self) -> str | None:
        """Why the device gives no input, in one line; ``None`` when it does."""
        if self._lost is None and time.monotonic() - self._latest[0] > HANGS_AFTER_S:
            return f"{self._name} does not answer; unplug it and plug it in again"
        return self._lost

    def start(self) -> None:
        """Opens the device and begins to read; ``InputError`` when there is none."""
        self._thread.start()
        if not self._opened.wait(self._open_within_s):
            self._stop.set()
            raise InputError(f"{self._name} did not answer within {self._open_within_s:.0f} s")
        if self._failed is not None:
            self._thread.join()
            raise InputError(self._failed)

    def stop(self) -> None:
        """Closes the device."""
        self._stop.set()
        self._thread.join(timeout=2.0)  # a hung driver is left behind: the thread is a daemon

    def latest(self) -> DeviceInput:
        """How the controls stand now; untouched when it is lost, hangs, or was not at rest yet."""
        taken, state = self._latest
        return NEUTRAL if time.monotonic() - taken > HANGS_AFTER_S else state

    def _run(self) -> None:
        try:
            self._device.open()
            self._take(self._device.poll())
        except Exception as error:
            self._failed = _in_words(self._name, error)
            self._device.close()
            return
        finally:
            self._opened.set()
        while not self._stop.is_set():
            try:
                self._take(self._device.poll())
            except Exception as error:
                self._lose(error)
                self._open_again()
        self._device.close()

    def _take(self, state: DeviceInput) -> None:
        if not self._trusted:
            self._trusted = all(abs(axis) <= self._rest for axis in (*state.axes, state.gripper))
            self._lost = (
                None if self._trusted else f"{self._name}: let go of its sticks once, to start from rest"
            )
        self._keep(state if self._trusted else NEUTRAL)
        for press in state.presses:
            self._on_press(press)

    def _keep(self, state: DeviceInput) -> None:
        self._latest = (time.monotonic(), state)

    def _lose(self, error: Exception) -> None:
        self._keep(NEUTRAL)
        self._trusted = False
        self._lost = _in_words(self._name, error)
        self._device.close()

    def _open_again(self) -> None:
        while not self._stop.wait(RETRY_EVERY_S):
            try:
                self._device.open()
            except Exception as error:
                self._lost = _in_words(self._name, error)
                self._keep(NEUTRAL)
            else:
                return


def _in_words(name: str, error: Exception) -> str:
    if isinstance(error, DeviceAbsent):
        return str(error)
    _log.debug("%s failed", name, exc_info=error)
    return f"{name} cannot be read: {error or type(error).__name__}"
