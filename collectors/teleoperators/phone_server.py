"""LeRobot's Android phone, on an address of our choice and without a pose to take before the first touch."""

from __future__ import annotations

import math
import socket
import threading
import time
from importlib import import_module
from typing import Any

import numpy as np
from lerobot.teleoperators.phone.config_phone import PhoneConfig
from lerobot.teleoperators.phone.teleop_phone import AndroidPhone
from lerobot.utils.rotation import Rotation

from collectors.teleoperators.device_input import DeviceAbsent


class PhoneServer(AndroidPhone):
    """Serves the page that the phone's browser opens, and takes its poses.

    LeRobot's own serves all networks on port 4443 and, in ``connect``, waits without end for a first touch.
    Its poses are in the frame in which the page was opened (forward, left, up) already, so there is nothing
    to calibrate.
    """

    def __init__(self, config: PhoneConfig, host: str, port: int) -> None:
        """Will serve ``host``:``port``; ``ImportError`` without LeRobot's extra ``phone``."""
        super().__init__(config)
        self._address = (host, port)
        self._teleop: Any = None
        self._heard_at = -math.inf
        self._calib_pos = np.zeros(3)
        self._calib_rot_inv = Rotation.from_quat(np.array([0.0, 0.0, 0.0, 1.0]))

    def silent_for_s(self) -> float:
        """How long no message has come, touched or not; infinite when none ever has."""
        return time.monotonic() - self._heard_at

    def _android_callback(self, pose: np.ndarray, message: dict[str, Any]) -> None:
        super()._android_callback(pose, message)
        self._heard_at = time.monotonic()

    def connect(self) -> None:
        """Begins to serve; ``DeviceAbsent`` when the port is taken. It serves until the process ends."""
        if self._teleop is not None:
            return
        host, port = self._address
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                where = f"{host}:{port} ({error.strerror})"
                raise DeviceAbsent(
                    f"the phone's page cannot be served at {where}; choose another port"
                ) from error
        self._teleop = import_module("teleop").Teleop(host=host, port=port)
        self._teleop.subscribe(self._android_callback)
        self._teleop_thread = threading.Thread(target=self._teleop.run, name="phone page", daemon=True)
        self._teleop_thread.start()
