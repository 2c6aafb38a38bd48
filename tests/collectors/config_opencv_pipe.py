"""Settings of ``opencv_pipe``; LeRobot finds the camera by this module's name."""

from __future__ import annotations

from dataclasses import dataclass

from lerobot.cameras import CameraConfig
from lerobot.cameras.opencv import OpenCVCameraConfig


@CameraConfig.register_subclass("opencv_pipe")
@dataclass
class OpenCVPipeConfig(OpenCVCameraConfig):
    """LeRobot's own settings of an OpenCV camera."""
