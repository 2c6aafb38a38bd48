"""A gamepad made of nothing, by SDL's own virtual joystick: everything above the USB cable is real."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from collectors.teleoperators.gamepad import start_sdl

_GAMECONTROLLER = 1
_AXES = ("leftx", "lefty", "rightx", "righty", "lefttrigger", "righttrigger")
_BUTTONS = (
    *("a", "b", "x", "y", "back", "guide", "start", "leftstick", "rightstick"),
    *("leftshoulder", "rightshoulder", "dpup", "dpdown", "dpleft", "dpright"),
)


class VirtualGamepad:
    """Sticks and buttons that a test moves; plugged in when built."""

    def __init__(self) -> None:
        """Plugs it in."""
        self._pygame = start_sdl()
        self._sdl = _loaded_sdl()
        self._joystick: Any = None
        self._handle = 0
        self._index = -1
        self.plug_in()

    def plug_in(self) -> None:
        """Plugs it in, with all sticks at rest."""
        self._index = self._sdl.SDL_JoystickAttachVirtual(_GAMECONTROLLER, len(_AXES), len(_BUTTONS), 1)
        assert self._index >= 0
        self._joystick = self._pygame.joystick.Joystick(self._index)
        self._handle = self._sdl.SDL_JoystickFromInstanceID(self._joystick.get_instance_id())
        for trigger in ("lefttrigger", "righttrigger"):
            self.move(trigger, -1.0)

    def unplug(self) -> None:
        """Pulls the plug."""
        if self._index >= 0:
            assert self._sdl.SDL_JoystickDetachVirtual(self._index) == 0
            self._joystick.quit()
            self._index = -1

    def move(self, axis: str, deflection: float) -> None:
        """Holds an axis at −1..1; right and down are positive, a trigger rests at −1."""
        value = round(deflection * 32767)
        assert self._sdl.SDL_JoystickSetVirtualAxis(self._handle, _AXES.index(axis), value) == 0

    def hold(self, button: str, down: bool = True) -> None:
        """Holds a button down, or lets it go."""
        assert self._sdl.SDL_JoystickSetVirtualButton(self._handle, _BUTTONS.index(button), down) == 0

    def shows(self, button: str) -> bool:
        """Whether SDL has noticed that a button is down."""
        return bool(self._joystick.get_button(_BUTTONS.index(button)))

    def push(self, share: float) -> None:
        """Pushes the left stick forward."""
        self.move("lefty", -share)

    def let_go(self) -> None:
        """Lets the left stick go."""
        if self._index >= 0:
            self.move("lefty", 0.0)


def _loaded_sdl() -> ctypes.CDLL:
    """The very library that pygame has loaded: a second copy would have other joysticks."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = [line.split()[-1] for line in maps if "libSDL2-2" in line]
    sdl = ctypes.CDLL(paths[0])
    sdl.SDL_JoystickFromInstanceID.restype = ctypes.c_void_p
    sdl.SDL_JoystickSetVirtualAxis.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int16]
    sdl.SDL_JoystickSetVirtualButton.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint8]
    return sdl
