"""A device's own clock, mapped to the system's."""

from __future__ import annotations

from collections import deque

JUMP_NS = (
    1_000_000_000  # more than any transfer takes: one of the two clocks was set, or a recording began anew
)


class DeviceClock:
    """Maps times of a device's clock to system time, free of the jitter with which images arrive.

    Arrival minus device time is the clocks' difference plus a delay. The delay has a lower bound that the
    fastest image of the last few hundred comes close to, so the least difference among them is taken. The
    result is never after the arrival and too late by at most that shortest delay.
    """

    def __init__(self, window: int = 300) -> None:
        """``window`` images are looked back on, so that clocks may drift apart slowly."""
        self._window = window
        self._count = 0
        self._least: deque[tuple[int, int]] = deque()  # (image number, difference), differences ascending

    def system_ns(self, device_ns: int, arrival_ns: int) -> int:
        """The system time, ns since 1970, of ``device_ns``, which arrived at system time ``arrival_ns``."""
        difference = arrival_ns - device_ns
        if self._least and abs(difference - self._least[0][1]) > JUMP_NS:
            self._least.clear()
        self._count += 1
        while self._least and self._least[-1][1] >= difference:
            self._least.pop()
        self._least.append((self._count, difference))
        if self._least[0][0] <= self._count - self._window:
            self._least.popleft()
        return device_ns + self._least[0][1]
