"""Settings of the camera type ``network_camera``; LeRobot finds the camera by this module's name."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.cameras import CameraConfig

from pipeline.errors import InputError


@CameraConfig.register_subclass("network_camera")
@dataclass(kw_only=True)
class NetworkCameraConfig(CameraConfig):
    """A camera that sends video over the network; wrong settings raise ``InputError`` when it is built.

    The camera in a Gen3's own wrist (its vision module) is one: ``rtsp://192.168.1.10/color``.
    """

    url: str = ""
    """``rtsp://``, ``http://`` or whatever else FFmpeg opens."""
    transport: str = "udp"
    """How RTSP sends images: ``"udp"``, or ``"tcp"`` where a network loses packets."""
    fps: int | None = 30
    width: int | None = 1280
    height: int | None = 720

    def __post_init__(self) -> None:
        """Rejects what cannot be opened."""
        if not self.url:
            raise InputError("network_camera: url is not given, such as rtsp://192.168.1.10/color")
        if self.transport not in ("udp", "tcp"):
            raise InputError(f"network_camera: transport is {self.transport!r}, must be 'udp' or 'tcp'")
        if not self.fps or self.fps < 0:
            raise InputError(f"network_camera: fps is {self.fps}, must be what the camera sends, such as 30")
