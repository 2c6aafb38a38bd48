"""The camera type ``azure_kinect``: an Azure Kinect's colour images, with the device's own time.

Its SDK cannot be loaded here (it needs NumPy below 2): its process runs in an interpreter of its own.
"""

from __future__ import annotations

from pathlib import Path

from collectors.camera_process import ProcessCamera
from collectors.config_azure_kinect import AzureKinectConfig

__all__ = ["AzureKinect", "AzureKinectConfig"]

SCRIPT = Path(__file__).with_name("azure_kinect_process.py")


class AzureKinect(ProcessCamera):
    """A LeRobot camera over ``azure_kinect_process.py``, which the configured interpreter runs."""

    def __init__(self, config: AzureKinectConfig) -> None:
        """Remembers the settings; ``connect`` starts the process."""
        super().__init__(config)
        self.config = config

    def __str__(self) -> str:
        """As LeRobot's cameras name themselves."""
        return f"AzureKinect({self.config.serial_number or 'the only one'})"

    def _command(self) -> list[str]:
        return [self.config.python, str(SCRIPT), "--serial", self.config.serial_number]
