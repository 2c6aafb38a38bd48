"""Which operators' devices are plugged in, and what is missing to use them."""

from __future__ import annotations

import os
from pathlib import Path

from collectors.teleoperators.device_input import DeviceAbsent
from collectors.teleoperators.gamepad import list_gamepads, start_sdl
from collectors.teleoperators.spacemouse import PERMISSION_HELP, UDEV_FILE, UDEV_RULE, import_hid
from collectors.teleoperators.spacemouse_reports import is_spacemouse


def describe_devices() -> list[str]:
    """One line each for gamepads and SpaceMice: its name, or what to plug in, install or permit."""
    return [*_gamepads(), *_spacemice()]


def udev_advice() -> str:
    """What to write where, so that SpaceMice can be read without being root."""
    return f"{UDEV_FILE}:\n{UDEV_RULE}"


def _gamepads() -> list[str]:
    """SDL is started for the look and stays: it is stopped for all of its users or for none."""
    try:
        pygame = start_sdl()
    except DeviceAbsent as error:
        return [f"gamepad: {error}"]
    pygame.event.pump()
    usable, unknown = list_gamepads(pygame)
    lines = [f"gamepad {number}: {name}" for number, (_, name) in enumerate(usable)]
    lines += [
        f"gamepad: SDL does not know the layout of {name!r}; give it in SDL_GAMECONTROLLERCONFIG"
        for name in unknown
    ]
    return lines or [_no_gamepad()]


def _no_gamepad() -> str:
    nodes = sorted(Path("/dev/input").glob("js*")) if Path("/dev/input").is_dir() else []
    closed = [node for node in nodes if not os.access(node, os.R_OK)]
    if closed:
        return f"gamepad: {closed[0]} may not be read; add yourself to the group input and log in again"
    return "gamepad: none is plugged in"


def _spacemice() -> list[str]:
    try:
        hid = import_hid()
    except DeviceAbsent as error:
        return [f"SpaceMouse: {error}"]
    lines = []
    for entry in hid.enumerate():
        if is_spacemouse(entry):
            path = entry["path"].decode()
            readable = not path.startswith("/dev/") or os.access(path, os.R_OK | os.W_OK)
            state = "" if readable else f"; it may not be opened: {PERMISSION_HELP}"
            lines.append(f"SpaceMouse at {path}: {entry['product_string'] or 'unnamed'}{state}")
    return lines or ["SpaceMouse: none is plugged in"]
