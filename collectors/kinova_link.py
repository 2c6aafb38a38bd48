"""The wire between the robot object and its driver process: JSON messages over a socket pair, never blocking.

``SOCK_SEQPACKET`` keeps message boundaries, so a message arrives whole or not at all, and it tells the end of
the other side. A full buffer loses the new message rather than waiting: whoever falls behind must not hold up
the other. Commands carry the time at which they were made, so that one that waited does not count as fresh.

To the driver: ``settings`` (first), ``command``, ``emergency_stop``, ``clear_faults``, ``home``, ``close``.
From the driver: ``ready`` or ``failed``, ``busy``, ``status``, ``reply``.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from collectors.kinova_limits import MotionLimits

MESSAGE_LIMIT = 65536  # bytes


class Mode(StrEnum):
    """What a driver process is there for: to drive, to look only, or to stop the arm and end."""

    DRIVE = "drive"
    LOOK = "look"
    STOP = "stop"


@dataclass(frozen=True)
class DriverSettings:
    """All that a driver process needs to know; sent over the link, so that no password is on a command line.

    Times in seconds. ``zero_after_s`` and ``stop_after_s`` are ages of the latest command, or of the latest
    feedback: then the twist becomes zero, then the arm is told to stop.
    """

    address: str
    tcp_port: int
    udp_port: int
    username: str
    password: str = field(repr=False)
    limits: MotionLimits = field(default_factory=MotionLimits)
    zero_after_s: float = 0.2
    stop_after_s: float = 1.0
    call_timeout_s: float = 0.1
    feedback_timeout_s: float = 0.05
    feedback_hz: float = 120.0
    stop_within_s: float = 10.0  # how long a process that only stops the arm tries before it gives up
    mode: Mode = Mode.DRIVE

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DriverSettings:
        """The inverse of :meth:`to_dict`."""
        limits = MotionLimits.from_dict(values["limits"])
        return cls(**values | {"limits": limits, "mode": Mode(values["mode"])})


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new wire."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Link:
    """One end of the wire; ``send`` may be called from any thread, ``receive`` from one."""

    def __init__(self, end: socket.socket) -> None:
        """Takes over a socket of :func:`socket_pair`."""
        end.setblocking(False)
        self._socket = end
        self._sending = threading.RLock()  # an emergency stop may come from a signal handler
        self.ended = False

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    def send(self, kind: str, **values: Any) -> bool:
        """Sends a message; False where the other end is gone or does not take anything at present."""
        data = json.dumps({"kind": kind, **values}).encode()
        with self._sending:
            try:
                self._socket.send(data)
            except OSError:
                return False
        return True

    def send_command(self, action: list[float]) -> bool:
        """Sends an action (7 numbers), stamped with the machine's monotonic clock."""
        return self.send("command", made_ns=time.monotonic_ns(), action=action)

    def receive(self) -> list[dict[str, Any]]:
        """All messages that have arrived, oldest first; never waits. Sets :attr:`ended` at the wire's end."""
        messages: list[dict[str, Any]] = []
        while not self.ended:
            try:
                data = self._socket.recv(MESSAGE_LIMIT)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.ended = True
                break
            messages.append(json.loads(data))
        return messages

    def wait(self, timeout_s: float) -> bool:
        """Waits until something has arrived or the wire ends; False after ``timeout_s``."""
        return wait_for((self,), timeout_s)

    def close(self) -> None:
        """Ends the wire; harmless when it has ended."""
        self.ended = True
        self._socket.close()


def wait_for(ends: Iterable[Link | socket.socket], timeout_s: float) -> bool:
    """Waits until one of the ends has something to read; False after ``timeout_s``.

    A closed end counts as readable. ``poll``, as ``select`` cannot take descriptors above 1023.
    """
    poller = select.poll()
    for end in ends:
        if end.fileno() < 0:
            return True
        poller.register(end.fileno(), select.POLLIN)
    return bool(poller.poll(max(timeout_s, 0.0) * 1000))


def newest_command(messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The command that was made last; the others are out of date. ``None`` where there is none."""
    commands = [m for m in messages if m["kind"] == "command"]
    return max(commands, key=lambda m: m["made_ns"]) if commands else None
