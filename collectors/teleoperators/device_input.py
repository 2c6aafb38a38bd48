"""What is read from an operator's device, the same for every kind of device."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from collectors.operator_keys import OperatorKey


class GripperPress(StrEnum):
    """A press that means the gripper."""

    TOGGLE = "toggle"


Press = OperatorKey | GripperPress


class DeviceAbsent(Exception):
    """The device is not there (any more); the text is one line for the operator: what to plug in or to do."""


@dataclass(frozen=True)
class DeviceInput:
    """How a device's controls stand at one moment.

    ``axes`` are deflections of −1..1, before dead zone and response: forward, left, up, then the turns
    about these three (right-handed). ``gripper`` is −1 (open) to 1 (close), as a rate. ``engaged`` is a
    hand on the device that counts as input without any motion, such as a held clutch. ``presses`` are new
    since the last reading.
    """

    axes: tuple[float, float, float, float, float, float] = (0.0,) * 6
    gripper: float = 0.0
    slow: bool = False
    engaged: bool = False
    presses: tuple[Press, ...] = field(default=())


NEUTRAL = DeviceInput()
"""Nothing touched: what counts whenever a device cannot be read."""


class PolledDevice(Protocol):
    """A device as :class:`~collectors.teleoperators.device_thread.DeviceThread` reads it, from one thread."""

    def open(self) -> None:
        """Finds and opens it; ``DeviceAbsent`` when there is none. Called again after it was lost."""
        ...

    def poll(self) -> DeviceInput:
        """Waits for news, 20 ms at most, tells how the controls stand; ``DeviceAbsent`` when it is gone."""
        ...

    def close(self) -> None:
        """Lets go of it; harmless when it is not open."""
        ...
