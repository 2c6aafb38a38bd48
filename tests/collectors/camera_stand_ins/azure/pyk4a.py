"""A stand-in for the Azure Kinect's Python SDK where there is no device: the calls that are used, no more.

Environment: ``PYK4A_STAND_IN_SERIALS`` (comma-separated, default ``000123``) are connected;
``PYK4A_STAND_IN_CABLE`` names a file whose word is what is wrong: ``unplugged``, ``hung`` or ``silent``.
Names, defaults, exceptions and shapes are those of pyk4a-bundle 1.5.0.
"""

import enum
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

BOOT_S = time.monotonic() - 100.0  # the device's clock starts when it is powered, not in 1970


class K4AException(Exception):
    """Anything that the SDK refuses."""


class K4ATimeoutException(K4AException):
    """No capture came in time."""


class ColorResolution(enum.IntEnum):
    """Sizes by name."""

    OFF = 0
    RES_720P = 1
    RES_1080P = 2
    RES_1440P = 3
    RES_1536P = 4
    RES_2160P = 5
    RES_3072P = 6


class FPS(enum.IntEnum):
    """Rates by name."""

    FPS_5 = 0
    FPS_15 = 1
    FPS_30 = 2


class ImageFormat(enum.IntEnum):
    """Pixel formats by name."""

    COLOR_MJPG = 0
    COLOR_NV12 = 1
    COLOR_YUY2 = 2
    COLOR_BGRA32 = 3


class DepthMode(enum.IntEnum):
    """Depth is not read."""

    OFF = 0
    NFOV_UNBINNED = 2


class Config:
    """What the device is asked to do."""

    def __init__(
        self,
        color_resolution: Any = ColorResolution.RES_720P,
        color_format: Any = ImageFormat.COLOR_BGRA32,
        depth_mode: Any = DepthMode.NFOV_UNBINNED,
        camera_fps: Any = FPS.FPS_30,
        synchronized_images_only: Any = True,
    ) -> None:
        if synchronized_images_only and depth_mode == DepthMode.OFF:
            raise AssertionError("the SDK refuses synchronised images without depth")
        self.size = {1: (720, 1280), 2: (1080, 1920)}[int(color_resolution)]
        self.period_s = 1 / {0: 5, 1: 15, 2: 30}[int(camera_fps)]
        if color_format != ImageFormat.COLOR_BGRA32:
            raise AssertionError("this stand-in draws BGRA only")


class Capture:
    """One picture."""

    def __init__(self, color: Any, color_timestamp_usec: Any) -> None:
        self.color = color
        self.color_timestamp_usec = color_timestamp_usec


def _trouble() -> Any:
    try:
        return Path(os.environ.get("PYK4A_STAND_IN_CABLE", "")).read_text().split()[0]
    except (OSError, IndexError):
        return ""


def _serials() -> Any:
    return [] if _trouble() == "unplugged" else os.environ.get("PYK4A_STAND_IN_SERIALS", "000123").split(",")


def connected_device_count() -> Any:
    """How many are connected."""
    return len(_serials())


class PyK4A:
    """A device."""

    def __init__(self, config: Any = None, device_id: Any = 0, thread_safe: Any = True) -> None:
        self._config = config
        self._device_id = device_id
        self._count = 0
        self._due = 0.0
        self.serial = None

    def open(self) -> None:
        """Opens it; its serial number is known from here on."""
        if self._device_id >= len(_serials()):
            raise K4AException
        self.serial = _serials()[self._device_id]

    def start(self) -> None:
        """Starts the camera."""
        print("the SDK prints lines of its own", file=sys.stderr, flush=True)
        print("also here", flush=True)
        # One buffer for all pictures, as an SDK would: whoever keeps one must have copied it.
        self._buffer = np.zeros((*self._config.size, 4), np.uint8)
        self._buffer[..., 0] = np.arange(self._config.size[1]) // 8 % 100  # blue
        self._buffer[..., 2] = 200  # red
        self._buffer[..., 3] = 255
        self._due = time.monotonic()

    def close(self) -> None:
        """Closes it."""

    def get_capture(self, timeout: Any = -1) -> Any:
        """The next picture: its green channel is the number of the picture."""
        trouble = _trouble()
        if trouble == "unplugged":
            raise K4AException
        while _trouble() == "hung":
            time.sleep(0.02)
        if trouble == "silent":
            time.sleep(timeout / 1000)
            raise K4ATimeoutException
        self._due = max(self._due + self._config.period_s, time.monotonic() - self._config.period_s)
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._count += 1
        self._buffer[..., 1] = self._count % 256
        return Capture(self._buffer, round((time.monotonic() - BOOT_S) * 1e6))
