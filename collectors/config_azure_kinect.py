"""Settings of the camera type ``azure_kinect``; LeRobot finds the camera by this module's name."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.cameras import CameraConfig

from collectors.azure_kinect_process import SIZES
from pipeline.errors import InputError

RATES = (5, 15, 30)


@CameraConfig.register_subclass("azure_kinect")
@dataclass(kw_only=True)
class AzureKinectConfig(CameraConfig):
    """An Azure Kinect's colour images, read by a process of its own; wrong settings raise ``InputError``."""

    python: str = ""
    """The interpreter of an environment with ``pyk4a-bundle``, such as ``/opt/azure-kinect/bin/python``."""
    serial_number: str = ""
    """May be left out where only one is connected."""
    fps: int | None = 30
    """5, 15 or 30 images a second."""
    width: int | None = 1280
    """The device's own sizes: 1280x720, 1920x1080, 2560x1440, 2048x1536, 3840x2160, 4096x3072."""
    height: int | None = 720

    def __post_init__(self) -> None:
        """Rejects what the device cannot do."""
        if not self.python:
            raise InputError(
                "azure_kinect: python is not given; its SDK needs an environment of its own: python3.12 -m "
                "venv DIR && DIR/bin/pip install 'numpy<2' pyk4a-bundle, then python = \"DIR/bin/python\""
            )
        if (self.width, self.height) not in SIZES:
            offered = ", ".join(f"{width}x{height}" for width, height in SIZES)
            raise InputError(f"azure_kinect: {self.width}x{self.height} is none of its sizes: {offered}")
        if self.fps not in RATES or (self.height == 3072 and self.fps == 30):
            raise InputError(f"azure_kinect: fps is {self.fps}, must be 5, 15 or 30 (up to 15 at 4096x3072)")
