"""Who is logged in, and the thread that keeps them so."""

from __future__ import annotations

import threading
from typing import Any

from .RouterClient import RouterClient, RouterClientSendOptions

_KEEP_ALIVE_EVERY_S = 0.15


class SessionManager:
    """Makes and ends a session. From its making on, a thread tells the arm every 150 ms that all is well.

    It does so whether or not the program that made the session still works: so a hung loop never trips the
    session's time-outs. The thread dies at the first send that fails.
    """

    def __init__(self, router: RouterClient) -> None:
        """Uses the router's connection."""
        self._router = router
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def CreateSession(
        self, message: Any, deviceId: int = 0, options: RouterClientSendOptions | None = None
    ) -> None:
        """Logs in with a ``CreateSessionInfo`` and starts the keep-alive thread."""
        self._router.call("CreateSession", message, deviceId, options)
        self._closing.clear()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True, name="kortex-keep-alive")
        self._thread.start()

    def CloseSession(self, deviceId: int = 0, options: RouterClientSendOptions | None = None) -> None:
        """Ends the keep-alive thread and logs out."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(1.0)
        self._router.call("CloseSession", None, deviceId, options)

    def _keep_alive(self) -> None:
        options = RouterClientSendOptions()
        while not self._closing.wait(_KEEP_ALIVE_EVERY_S):
            try:
                options.timeout_ms = 1000
                self._router.call("KeepAlive", None, 0, options)
            except TimeoutError:
                continue
            except Exception:
                return
