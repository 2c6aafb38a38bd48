"""Feedback of the arm."""

from __future__ import annotations

from typing import Any

from ...RouterClient import RouterClient, RouterClientSendOptions


class BaseCyclicClient:
    """Best over UDP, where it may be asked up to a thousand times a second."""

    def __init__(self, router: RouterClient) -> None:
        """Uses the router's session."""
        self._router = router

    def RefreshFeedback(self, deviceId: int = 0, options: RouterClientSendOptions | None = None) -> Any:
        """A ``Feedback``: joints in 0..360 deg, deg/s, N·m; tool pose in m and deg; gripper 0..100 %."""
        return self._router.call("RefreshFeedback", None, deviceId, options)
