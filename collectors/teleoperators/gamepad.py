"""A gamepad as operator: six degrees of freedom, gripper, and a button for everything an operator says.

SDL reads it, through pygame, with SDL's own table of pads: an Xbox, a PlayStation and most other pads have
their sticks and buttons in the same places, whatever their numbering. SDL's rule is that the thread that
starts it also pumps its events; here that is one thread of our own, which touches no window and leaves the
signals alone.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lerobot.teleoperators import TeleoperatorConfig

from collectors.operator_keys import OperatorKey
from collectors.teleoperators.device_config import DeviceOperatorConfig
from collectors.teleoperators.device_input import DeviceAbsent, DeviceInput, GripperPress, Press
from collectors.teleoperators.polled_operator import PolledOperator

_FULL = 32767.0
_POLL_S = 0.008
_ENVIRONMENT = {
    "SDL_VIDEODRIVER": "dummy",  # events without a window or a display
    "SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS": "1",  # there is no window that could have the focus
    "SDL_NO_SIGNAL_HANDLERS": "1",  # SIGTERM stays ours
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}
BUTTONS: dict[str, Press] = {
    "A": OperatorKey.SUCCESS,
    "X": OperatorKey.FAILURE,
    "Y": OperatorKey.DISCARD,
    "B": OperatorKey.EMERGENCY_STOP,  # the red one, under the right thumb
    "START": OperatorKey.START,
    "BACK": OperatorKey.PAUSE,
    "GUIDE": OperatorKey.STOP,
    "LEFTSTICK": OperatorKey.CLEAR_FAULTS,
    "RIGHTSHOULDER": GripperPress.TOGGLE,
}
"""SDL's names of the buttons, which are those of an Xbox pad, to what they mean."""


@TeleoperatorConfig.register_subclass("gen3_gamepad")
@dataclass(kw_only=True)
class Gen3GamepadConfig(DeviceOperatorConfig):
    """Settings of the gamepad; ``index`` chooses among several, 0 is the first."""

    dead_zone: float = 0.12
    index: int = 0

    def __post_init__(self) -> None:
        """Rejects settings that make no sense."""
        super().__post_init__()
        self._check("index", self.index >= 0, "0 or more")


class GamepadDevice:
    """One pad through SDL; to be used from one thread only."""

    def __init__(self, index: int) -> None:
        """Pad number ``index`` of those that SDL knows the layout of."""
        self._index = index
        self._pygame: Any = None
        self._pad: Any = None
        self._id = -1

    def open(self) -> None:
        """Starts SDL and opens the pad; ``DeviceAbsent`` with what to do when there is none."""
        if self._pygame is None:
            self._pygame = start_sdl()
        self._pygame.event.pump()
        usable, unknown = list_gamepads(self._pygame)
        if self._index >= len(usable):
            raise DeviceAbsent(_absence(self._index, len(usable), unknown))
        self._pad = self._controllers().Controller(usable[self._index][0])
        self._id = self._pad.as_joystick().get_instance_id()

    def poll(self) -> DeviceInput:
        """How sticks, triggers and buttons stand; ``DeviceAbsent`` when the pad is unplugged."""
        time.sleep(_POLL_S)
        pygame = self._pygame
        meaning = {getattr(pygame, f"CONTROLLER_BUTTON_{name}"): press for name, press in BUTTONS.items()}
        pressed = [
            meaning[event.button]
            for event in pygame.event.get()
            if event.type == pygame.CONTROLLERBUTTONDOWN
            and event.instance_id == self._id
            and event.button in meaning
        ]
        if not self._pad.attached():
            raise DeviceAbsent("the gamepad is unplugged; plug it in again, or switch it on")
        return DeviceInput(
            axes=self._axes(),
            gripper=self._axis("TRIGGERRIGHT") - self._axis("TRIGGERLEFT"),
            slow=self._button("LEFTSHOULDER") > 0,
            presses=tuple(pressed),
        )

    def close(self) -> None:
        """Lets go of the pad; SDL itself goes on, so that a pad that comes back is seen."""
        if self._pad is not None:
            self._pad.quit()
            self._pad = None

    def _axes(self) -> tuple[float, float, float, float, float, float]:
        # SDL: right and down are positive. Base: forward, left, up; turns are right-handed about these.
        roll = self._button("DPAD_RIGHT") - self._button("DPAD_LEFT")
        pitch = self._button("DPAD_UP") - self._button("DPAD_DOWN")
        return (
            -self._axis("LEFTY"),
            -self._axis("LEFTX"),
            -self._axis("RIGHTY"),
            roll,
            pitch,
            -self._axis("RIGHTX"),
        )

    def _axis(self, name: str) -> float:
        return float(self._pad.get_axis(getattr(self._pygame, f"CONTROLLER_AXIS_{name}"))) / _FULL

    def _button(self, name: str) -> float:
        return float(self._pad.get_button(getattr(self._pygame, f"CONTROLLER_BUTTON_{name}")))

    @staticmethod
    def _controllers() -> Any:
        from pygame._sdl2 import controller

        return controller


class Gen3Gamepad(PolledOperator):
    """Left stick: forward and sideways. Right stick: up, down and turn. D-pad: tilt. Triggers: gripper.

    The left shoulder button held is slow mode; the right one closes or opens the gripper. Buttons:
    :data:`BUTTONS`.
    """

    config_class = Gen3GamepadConfig
    name = "gen3_gamepad"

    def __init__(self, config: Gen3GamepadConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Remembers the settings; ``connect`` looks for the pad."""
        super().__init__(config, GamepadDevice(config.index), label="the gamepad", clock=clock)


def start_sdl() -> Any:
    """Starts what reads pads in SDL, in this thread; ``DeviceAbsent`` where pygame is not installed."""
    with _environment(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pygame imports pkg_resources, which warns of its own end
        try:
            import pygame
            from pygame._sdl2 import controller
        except ImportError as error:
            raise DeviceAbsent("the gamepad needs pygame: pip install 'lerobot[gamepad]'") from error
        pygame.display.init()
        pygame.joystick.init()
        controller.init()
        controller.set_eventstate(True)
    return pygame


def list_gamepads(pygame: Any) -> tuple[list[tuple[int, str]], list[str]]:
    """SDL's index and name of every usable pad, and the names of those whose layout SDL does not know."""
    from pygame._sdl2 import controller

    usable, unknown = [], []
    for index in range(pygame.joystick.get_count()):
        if controller.is_controller(index):
            usable.append((index, str(controller.name_forindex(index))))
        else:
            unknown.append(str(pygame.joystick.Joystick(index).get_name()))
    return usable, unknown


def _absence(index: int, usable: int, unknown: list[str]) -> str:
    if usable:
        return f"there is no gamepad number {index}; {usable} of them are plugged in, the first is number 0"
    if unknown:
        return (
            f"SDL does not know the layout of {unknown[0]!r}; give it in SDL_GAMECONTROLLERCONFIG "
            "or use another gamepad"
        )
    return "no gamepad is plugged in; plug one in, or see what `python -m collectors.teleoperators` finds"


@contextmanager
def _environment() -> Iterator[None]:
    """SDL's settings, which it reads when it starts; not left behind for other programs."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
