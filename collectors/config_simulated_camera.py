"""Settings of the camera type ``simulated_camera``; LeRobot finds the camera by this module's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lerobot.cameras import CameraConfig

from pipeline.errors import InputError


@CameraConfig.register_subclass("simulated_camera")
@dataclass(kw_only=True)
class SimulatedCameraConfig(CameraConfig):
    """A camera that needs no hardware; wrong settings raise ``InputError`` when it is built."""

    fps: int | None = 30
    """Images a second, 1 to 240."""
    width: int | None = 640
    """Pixels, at least 64."""
    height: int | None = 480
    """Pixels, at least 48."""
    phase: int = 0
    """Where the moving bar starts, in pixels, so that two cameras look different."""
    cable: Path | None = None
    """A file that says what is wrong with the device; see ``collectors.simulated_camera.SimulatedCable``."""

    def __post_init__(self) -> None:
        """Rejects what cannot be drawn."""
        if self.fps is None or not 1 <= self.fps <= 240:
            raise InputError(f"simulated_camera: fps is {self.fps}, must be 1 to 240")
        if self.width is None or not 64 <= self.width <= 4096:
            raise InputError(f"simulated_camera: width is {self.width}, must be 64 to 4096")
        if self.height is None or not 48 <= self.height <= 4096:
            raise InputError(f"simulated_camera: height is {self.height}, must be 48 to 4096")
