"""Callbacks for what the arm says unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .RouterClient import RouterClient
from .stand_in.frames import FUNCTIONS, Packet
from .stand_in.messages import message_class


class NotificationHandler:
    """Registers callbacks for a topic with the router's class-wide table."""

    def register(self, topic: str, notification: tuple[str, str], callback: Callable[[Any], None]) -> None:
        """Calls ``callback`` with each notification of ``topic``, from the receiving thread."""
        function = FUNCTIONS[topic]
        message = message_class(*notification)

        def listen(packet: Packet) -> None:
            callback(message.FromString(packet.payload))

        RouterClient.notificationService[int(function.service), function.number] = listen

    def unregister(self, topic: str) -> None:
        """Calls nobody any more."""
        function = FUNCTIONS[topic]
        RouterClient.notificationService.pop((int(function.service), function.number), None)
