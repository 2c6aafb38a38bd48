"""A driver whose loop hangs when it is told to go home: ``python -m tests.collectors.kinova_hang``.

For tests of the guard, which must stop the arm all the same. Takes ``--link`` as the driver does. ``--stuck``
hangs inside a call to the arm, so that nothing can be sent over that connection any more.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from typing import Any

from collectors.kinova_driver import HUNG, Driver
from collectors.kinova_link import DriverSettings, Link


class HangingLink(Link):
    """Hangs in ``receive`` when a ``home`` arrives, until :meth:`go_on`."""

    def __init__(self, end: socket.socket, stuck: bool) -> None:
        """``stuck`` takes the connection's lock along."""
        super().__init__(end)
        self.driver: Driver | None = None
        self._stuck = stuck
        self._over = threading.Event()

    def receive(self) -> list[dict[str, Any]]:
        """The messages, or nothing for a long time."""
        messages = super().receive()
        if any(message["kind"] == "home" for message in messages):
            assert self.driver is not None
            lock = self.driver._arm._client._connection._lock
            if self._stuck:
                lock.acquire()
            self._over.wait(60)
            if self._stuck:
                lock.release()
        return messages

    def go_on(self, status: int) -> None:
        """What the guard does last; here the process ends in order, so that its coverage is written."""
        assert status == HUNG
        assert self.driver is not None
        while self._stuck and not self.ended:  # what stops the arm meanwhile is the fresh process alone
            self.wait(0.1)
            super().receive()
        self.driver.end()
        self._over.set()


def main() -> int:
    """As the driver's own, with the hanging link."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--link", type=int, required=True)
    parser.add_argument("--stuck", action="store_true")
    wanted = parser.parse_args()
    link = HangingLink(socket.socket(fileno=wanted.link), wanted.stuck)
    link.wait(10)
    (message,) = super(HangingLink, link).receive()
    settings = DriverSettings.from_dict({k: v for k, v in message.items() if k != "kind"})
    link.driver = Driver(link, settings, abort=link.go_on)
    return link.driver.run()


if __name__ == "__main__":
    sys.exit(main())
