"""The HID reports of a SpaceMouse, and which USB devices are one.

Report 1 holds three or six axes, report 2 the three turns where report 1 holds three, report 3 the buttons.
An axis is a little-endian int16 of about ±350. In the device's own axes x is to the right, y towards the
person and z down; the turns are right-handed about these.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collectors.operator_keys import OperatorKey
from collectors.teleoperators.device_input import DeviceInput, GripperPress, Press

FULL_DEFLECTION = 350.0
SILENT_AFTER_S = 0.4
"""A displaced cap reports all the time; silence this long means that it is centred, or out of battery."""

_3DCONNEXION = 0x256F
_LOGITECH = 0x046D  # made them until 2014, and much else
_LOGITECH_MICE = {0xC621, 0xC623, 0xC625, 0xC626, 0xC627, 0xC628, 0xC629, 0xC62B}
_MULTI_AXIS = (1, 8)  # HID usage page and usage "multi-axis controller"
_PRO = {0xC62B, 0xC631, 0xC632, 0xC633, 0xC638, 0xC652}
"""Products with the keypad of the SpaceMouse Pro and Enterprise (or a receiver that one may talk to)."""

_PRO_BUTTONS: dict[int, OperatorKey] = {
    12: OperatorKey.SUCCESS,
    13: OperatorKey.FAILURE,
    14: OperatorKey.DISCARD,
    15: OperatorKey.PAUSE,
    22: OperatorKey.EMERGENCY_STOP,
}
"""Bit of report 3 by the keys 1, 2, 3, 4 and Esc."""
_PRO_SHIFT = 24
_LEFT, _RIGHT = 1, 2


def is_spacemouse(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of ``hid.enumerate()`` is one (the right interface of one, where it has several)."""
    usage = (entry.get("usage_page", 0), entry.get("usage", 0))
    if entry["vendor_id"] == _LOGITECH:
        return entry["product_id"] in _LOGITECH_MICE and usage in (_MULTI_AXIS, (0, 0))
    return entry["vendor_id"] == _3DCONNEXION and usage in (_MULTI_AXIS, (0, 0))


@dataclass
class SpaceMouseReports:
    """What the reports so far say; ``product_id`` and ``toggle`` decide what the buttons mean."""

    product_id: int
    toggle: bool
    _translation: tuple[int, ...] = (0, 0, 0)
    _turns: tuple[int, ...] = (0, 0, 0)
    _buttons: int = 0
    _axes_at: float = float("-inf")

    def feed(self, report: bytes, now: float) -> tuple[Press, ...]:
        """Takes one report that came at ``now`` (seconds); returns what was pressed by it."""
        if not report:
            return ()
        kind, content = report[0], report[1:]
        if kind in (1, 2) and len(content) >= 6:
            axes = struct.unpack("<3h", content[:6])
            self._axes_at = now
            if kind == 2:
                self._turns = axes
            else:
                self._translation = axes
                if len(content) >= 12:
                    self._turns = struct.unpack("<3h", content[6:12])
        elif kind == 3:
            return self._press(int.from_bytes(content, "little"))
        return ()

    def state(self, now: float, presses: tuple[Press, ...]) -> DeviceInput:
        """How the cap and the buttons stand at ``now``."""
        centred = now - self._axes_at > SILENT_AFTER_S
        raw = (0,) * 6 if centred else (*self._translation, *self._turns)
        right, back, down, about_right, about_back, about_down = (value / FULL_DEFLECTION for value in raw)
        left_held, right_held = bool(self._buttons & _LEFT), bool(self._buttons & _RIGHT)
        shift = self.product_id in _PRO and bool(self._buttons >> _PRO_SHIFT & 1)
        return DeviceInput(
            axes=(-back, -right, -down, -about_back, -about_right, -about_down),
            gripper=0.0 if self.toggle else float(left_held) - float(right_held),
            slow=shift or (self.toggle and right_held),
            presses=presses,
        )

    def _press(self, buttons: int) -> tuple[Press, ...]:
        new, self._buttons = buttons & ~self._buttons, buttons
        if new & (_LEFT | _RIGHT) and buttons & _LEFT and buttons & _RIGHT:
            return (OperatorKey.EMERGENCY_STOP,)
        presses: list[Press] = []
        if self.toggle and new & _LEFT:
            presses.append(GripperPress.TOGGLE)
        if self.product_id in _PRO:
            presses += [key for bit, key in _PRO_BUTTONS.items() if new >> bit & 1]
        return tuple(presses)
