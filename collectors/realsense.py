"""The camera type ``realsense``: colour images of an Intel RealSense, with the device's own time.

Its SDK, ``pyrealsense2``, runs in a process of its own: it holds Python's lock for 15 s while it looks for a
camera that is gone, which would stop the arm in mid-motion.
"""

from __future__ import annotations

import sys

from collectors.camera_process import ProcessCamera
from collectors.config_realsense import RealSenseConfig

__all__ = ["RealSense", "RealSenseConfig"]


class RealSense(ProcessCamera):
    """A LeRobot camera over ``collectors.realsense_process``."""

    def __init__(self, config: RealSenseConfig) -> None:
        """Remembers the settings; ``connect`` starts the process."""
        super().__init__(config)
        self.config = config

    def __str__(self) -> str:
        """As LeRobot's cameras name themselves."""
        return f"RealSense({self.config.serial_number or self.config.recording})"

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "collectors.realsense_process"]
        if self.config.recording is not None:
            return [*command, "--recording", str(self.config.recording.absolute())]
        return [*command, "--serial", self.config.serial_number]
