"""The terminal's keyboard as operator: works everywhere, over SSH too, without any device or display.

A terminal repeats a held key and says nothing when it is let go. So a key that stops repeating stops the
arm, and only one key at a time can be held.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lerobot.teleoperators import TeleoperatorConfig

from collectors.operator_keys import KEYS, OperatorKey, TerminalInput
from collectors.teleoperators.device_config import DeviceOperatorConfig
from collectors.teleoperators.device_input import DeviceInput, GripperPress
from collectors.teleoperators.device_operator import DeviceOperator
from collectors.teleoperators.held_keys import HeldKeys
from pipeline.errors import InputError

AXIS_KEYS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("up",), ("down",)),
    (("left",), ("right",)),
    (("page_up", "r"), ("page_down", "v")),
    (("o",), ("u",)),
    (("i",), ("k",)),
    (("j",), ("l",)),
)
"""Keys for and against each axis: forward, left, up, then the turns about these."""
CLOSE_KEY, OPEN_KEY, TOGGLE_KEY, SLOW_KEY = "x", "z", "g", "tab"
MOVE_HELP = (
    "arrows move · r/v raise/lower · i/k tilt · u/o roll · j/l turn · x/z close/open · g grip · tab slow"
)


@TeleoperatorConfig.register_subclass("gen3_keyboard")
@dataclass(kw_only=True)
class Gen3KeyboardConfig(DeviceOperatorConfig):
    """Settings of the keyboard; a key has no deflection, so there is no dead zone and no curve."""

    dead_zone: float = 0.0
    curve: float = 0.0


class Gen3Keyboard(DeviceOperator):
    """Drives by the keys of :data:`AXIS_KEYS`; the other keys are those of ``collectors.operator_keys``.

    It shares the reader of a loop that has one (:meth:`use_terminal`), which then gets the operator's keys;
    else it reads the terminal itself.
    """

    config_class = Gen3KeyboardConfig
    name = "gen3_keyboard"

    def __init__(self, config: Gen3KeyboardConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Remembers the settings; ``connect`` begins to read."""
        self._connected = False
        super().__init__(config, clock=clock)
        self._shared: TerminalInput | None = None
        self._own: TerminalInput | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._held = HeldKeys()
        self._slow = False

    def use_terminal(self, terminal: TerminalInput) -> None:
        """Reads the arm's keys from ``terminal``, which somebody else opened; call it before ``connect``."""
        self._shared = terminal

    @property
    def is_connected(self) -> bool:
        """Whether ``connect`` was called."""
        return self._connected

    def _start(self) -> None:
        self._held = HeldKeys()
        self._slow = False
        terminal = self._shared
        if terminal is None:
            terminal = self._own = TerminalInput().__enter__()
        if not terminal.is_reading:
            self._own = None
            raise InputError(
                "gen3_keyboard needs a terminal; start it in one, not in the background or a pipe"
            )
        self._unsubscribe = terminal.subscribe(self._on_key)
        self._connected = True

    def _stop(self) -> None:
        self._unsubscribe()
        self._connected = False
        if self._own is not None:
            self._own.__exit__(None, None, None)
            self._own = None

    def _on_key(self, name: str) -> None:
        meaning = KEYS.get(name.lower())
        if meaning is OperatorKey.EMERGENCY_STOP:
            with self._lock:
                self._held.release_all()
        if meaning is not None:
            if self._own is not None:  # a shared terminal tells its owner
                self._press(meaning)
            return
        key = name.lower()
        if key == TOGGLE_KEY:
            with self._lock:  # or what is left of a held key would undo the toggle
                self._held.release(CLOSE_KEY)
                self._held.release(OPEN_KEY)
            self._press(GripperPress.TOGGLE)
        elif key == SLOW_KEY:
            self._slow = not self._slow
        else:
            with self._lock:
                self._held.press(key, self._clock())

    def _read(self) -> DeviceInput:
        now = self._clock()
        if self._lost() is not None:
            return DeviceInput()
        with self._lock:

            def held(keys: tuple[str, ...]) -> float:
                return max(self._held.deflection(key, now) for key in keys)

            forward, left, up, roll, pitch, yaw = (held(plus) - held(minus) for plus, minus in AXIS_KEYS)
            gripper = held((CLOSE_KEY,)) - held((OPEN_KEY,))
        return DeviceInput((forward, left, up, roll, pitch, yaw), gripper, self._slow)

    def _lost(self) -> str | None:
        terminal = self._own or self._shared
        if not self._connected or terminal is None or terminal.is_reading:
            return None
        return terminal.lost or "the terminal is not read any more; start again in a terminal"
