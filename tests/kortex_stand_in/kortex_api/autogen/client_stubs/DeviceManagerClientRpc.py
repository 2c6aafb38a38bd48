"""The ``DeviceManager`` service; nothing of it is used, so nothing of it is offered."""

from __future__ import annotations

from ...RouterClient import RouterClient


class DeviceManagerClient:
    """Has the vendor's name and no calls."""

    def __init__(self, router: RouterClient) -> None:
        """Uses the router's session."""
        self._router = router
