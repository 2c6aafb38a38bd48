"""Settings of the camera type ``orbbec``; LeRobot finds the camera by this module's name."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.cameras import CameraConfig

from pipeline.errors import InputError


@CameraConfig.register_subclass("orbbec")
@dataclass(kw_only=True)
class OrbbecConfig(CameraConfig):
    """An Orbbec Femto Bolt's (or other Orbbec's) colour images; wrong settings raise ``InputError``."""

    serial_number: str = ""
    """Listed by ``recap doctor``; may be left out where only one is connected."""
    fps: int | None = 30
    width: int | None = 1280
    """A Femto Bolt offers 1280x720, 1280x960, 1920x1080, 2560x1440 and 3840x2160."""
    height: int | None = 720

    def __post_init__(self) -> None:
        """Rejects a rate that is none."""
        if not self.fps or self.fps < 0:
            raise InputError(f"orbbec: fps is {self.fps}, must be one that the camera offers, such as 30")
