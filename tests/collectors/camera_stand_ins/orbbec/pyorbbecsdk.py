"""A stand-in for Orbbec's Python SDK where there is no device: the calls that are used, no more.

Environment: ``ORBBEC_STAND_IN_SERIALS`` (comma-separated, default ``CL8F253004Z``) are connected;
``ORBBEC_STAND_IN_CABLE`` names a file whose word is what is wrong: ``unplugged`` or ``silent``. Names,
signatures and exceptions are those of pyorbbecsdk2 2.1.2, which a test compares where it is installed.
"""

import enum
import os
import time
from pathlib import Path
from typing import Any

import numpy as np


class OBError(Exception):
    """Anything that the SDK refuses."""


class OBFormat(enum.Enum):
    """Pixel formats by name."""

    UNKNOWN_FORMAT = -1
    MJPG = 5
    RGB = 22
    BGR = 23


class OBSensorType(enum.Enum):
    """Sensors by name."""

    COLOR_SENSOR = 2


class OBLogLevel(enum.Enum):
    """How much is logged."""

    NONE = 5


def _trouble() -> Any:
    try:
        return Path(os.environ.get("ORBBEC_STAND_IN_CABLE", "")).read_text().split()[0]
    except (OSError, IndexError):
        return ""


class Context:
    """The SDK's entry."""

    @staticmethod
    def set_logger_to_file(level: Any, folder: Any) -> None:
        """Quiet."""

    @staticmethod
    def set_logger_to_console(level: Any) -> None:
        """Quiet."""

    def query_devices(self) -> Any:
        """What is connected."""
        return DeviceList()


class DeviceList:
    """What is connected."""

    def __init__(self) -> None:
        given = os.environ.get("ORBBEC_STAND_IN_SERIALS", "CL8F253004Z")
        self._serials = [] if _trouble() == "unplugged" or not given else given.split(",")

    def get_count(self) -> Any:
        """How many."""
        return len(self._serials)

    def get_device_serial_number_by_index(self, index: Any) -> Any:
        """A serial number."""
        return self._serials[index]

    def get_device_name_by_index(self, index: Any) -> str:
        """A name."""
        return "Orbbec Femto Bolt"

    def get_device_by_serial_number(self, serial: Any) -> Any:
        """A device."""
        if serial not in self._serials:
            raise OBError(f"Device not found by serial number: {serial}")
        return serial


class Config:
    """Which streams are wanted."""

    def enable_stream(self, profile: Any) -> None:
        """This one."""
        self.profile = profile


class StreamProfileList:
    """What the device offers."""

    def get_video_stream_profile(
        self, width: Any = 0, height: Any = 0, format: Any = OBFormat.UNKNOWN_FORMAT, fps: Any = 0
    ) -> Any:
        """The one that fits."""
        if (width, height) not in ((1280, 720), (1280, 960)) or fps not in (5, 15, 25, 30):
            raise OBError("Invalid input, No matched video stream profile found!")
        if format == OBFormat.RGB and os.environ.get("ORBBEC_STAND_IN_ONLY_JPEG"):
            raise OBError("Invalid input, No matched video stream profile found!")
        if format == OBFormat.BGR and os.environ.get("ORBBEC_STAND_IN_ONLY_JPEG"):
            raise OBError("Invalid input, No matched video stream profile found!")
        return width, height, format, fps


class ColorFrame:
    """One picture."""

    def __init__(self, data: Any, width: Any, height: Any, kind: Any, device_us: Any) -> None:
        self._data, self._width, self._height, self._kind = data, width, height, kind
        self._device_us, self._system_us = device_us, round(time.time() * 1e6)

    def get_data(self) -> Any:
        """Flat bytes."""
        return self._data

    def get_width(self) -> Any:
        """Pixels."""
        return self._width

    def get_height(self) -> Any:
        """Pixels."""
        return self._height

    def get_format(self) -> Any:
        """Pixel format."""
        return self._kind

    def get_timestamp_us(self) -> Any:
        """The device's clock."""
        return self._device_us

    def get_system_timestamp_us(self) -> Any:
        """When it arrived at the SDK, since 1970."""
        return self._system_us


class FrameSet:
    """What arrived together."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def get_color_frame(self) -> Any:
        """The colour one."""
        return self._frame


class Pipeline:
    """A running device."""

    def __init__(self, device: Any) -> None:
        self._count = 0

    def get_stream_profile_list(self, sensor: Any) -> Any:
        """What the device offers."""
        return StreamProfileList()

    def start(self, config: Any) -> None:
        """Starts it."""
        self._width, self._height, self._kind, fps = config.profile
        self._period_s = 1 / fps
        # One buffer for all pictures, as an SDK might: whoever keeps one must have copied it.
        self._buffer = np.zeros((self._height, self._width, 3), np.uint8)
        self._buffer[..., 2] = np.arange(self._width) // 8 % 100
        self._buffer[..., 0] = 200  # red
        self._due = time.monotonic()

    def stop(self) -> None:
        """Stops it."""
        if _trouble() == "unplugged":
            raise OBError("Device is deactivated/disconnected!")

    def wait_for_frames(self, timeout_ms: Any) -> Any:
        """The next picture, or ``None``: its green channel is the number of the picture."""
        if _trouble() in ("unplugged", "silent"):
            time.sleep(timeout_ms / 1000)
            return None
        self._due = max(self._due + self._period_s, time.monotonic() - self._period_s)
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._count += 1
        self._buffer[..., 1] = self._count % 256
        data = self._buffer.reshape(-1)
        if self._kind == OBFormat.MJPG:
            import cv2

            data = cv2.imencode(".jpg", self._buffer[..., ::-1])[1].reshape(-1)
        device_us = round((time.monotonic() + 1000) * 1e6)
        return FrameSet(ColorFrame(data, self._width, self._height, self._kind, device_us))
