"""Settings of the camera type ``realsense``; LeRobot finds the camera by this module's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lerobot.cameras import CameraConfig

from pipeline.errors import InputError


@CameraConfig.register_subclass("realsense")
@dataclass(kw_only=True)
class RealSenseConfig(CameraConfig):
    """An Intel RealSense's colour images with the device's own time; a recording can stand in for it.

    LeRobot's ``intelrealsense`` is the other way to use one: it has rotation and manual exposure, and its
    images are stamped when they arrive. Wrong settings raise ``InputError`` when this is built.
    """

    serial_number: str = ""
    """Printed on the camera, and listed by ``recap doctor``."""
    recording: Path | None = None
    """A file that RealSense tools recorded (``.bag``), played in a circle instead of a camera."""
    fps: int | None = 30
    width: int | None = 640
    height: int | None = 480

    def __post_init__(self) -> None:
        """Exactly one of a camera and a recording."""
        if bool(self.serial_number) == (self.recording is not None):
            raise InputError("realsense: give either serial_number or recording")
        if not self.fps or self.fps < 0:
            raise InputError(f"realsense: fps is {self.fps}, must be one that the camera offers, such as 30")
