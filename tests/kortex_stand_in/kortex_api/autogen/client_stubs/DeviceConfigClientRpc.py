"""What a device of the arm is."""

from __future__ import annotations

from typing import Any

from ...RouterClient import RouterClient, RouterClientSendOptions


class DeviceConfigClient:
    """Asked of the base itself when no device number is given."""

    def __init__(self, router: RouterClient) -> None:
        """Uses the router's session."""
        self._router = router

    def GetFirmwareVersion(self, deviceId: int = 0, options: RouterClientSendOptions | None = None) -> Any:
        """A ``FirmwareVersion``."""
        return self._router.call("GetFirmwareVersion", None, deviceId, options)
