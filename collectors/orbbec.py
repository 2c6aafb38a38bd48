"""The camera type ``orbbec``: colour images of an Orbbec Femto Bolt, with the device's own time.

Its SDK, ``pyorbbecsdk2``, is optional and runs in a process of its own.
"""

from __future__ import annotations

import sys

from collectors.camera_process import ProcessCamera
from collectors.config_orbbec import OrbbecConfig

__all__ = ["Orbbec", "OrbbecConfig"]


class Orbbec(ProcessCamera):
    """A LeRobot camera over ``collectors.orbbec_process``."""

    def __init__(self, config: OrbbecConfig) -> None:
        """Remembers the settings; ``connect`` starts the process."""
        super().__init__(config)
        self.config = config

    def __str__(self) -> str:
        """As LeRobot's cameras name themselves."""
        return f"Orbbec({self.config.serial_number or 'the only one'})"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "collectors.orbbec_process", "--serial", self.config.serial_number]
