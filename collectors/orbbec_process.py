"""Reads an Orbbec in a process of its own and writes its colour images into a pipe.

``collectors.azure_kinect_process`` says what goes into the pipe. The SDK, ``pyorbbecsdk2``, is optional and
imported when it is needed, not with this module.
"""

from __future__ import annotations

import argparse
import importlib
import time
from typing import Any

import cv2
import numpy as np

from collectors.azure_kinect_process import HELLO, SILENCE_S, NoCamera, say, send_image, serve

WAIT_MS = 500  # for one image
REMEDY = "pip install --no-deps pyorbbecsdk2"


def load_sdk() -> Any:
    """The SDK's module, told to be quiet; ``ImportError`` with the remedy where it is not installed."""
    try:
        sdk = importlib.import_module("pyorbbecsdk")
    except ImportError as error:
        raise ImportError(f"the Orbbec SDK is not installed: {REMEDY}") from error
    # It would write ./Log/ into the current folder and over the live view.
    sdk.Context.set_logger_to_file(sdk.OBLogLevel.NONE, "")
    sdk.Context.set_logger_to_console(sdk.OBLogLevel.NONE)
    return sdk


def connected_devices() -> list[tuple[str, str]]:
    """Name and serial number of each connected Orbbec; ``ImportError`` without the SDK."""
    devices = load_sdk().Context().query_devices()
    return [
        (devices.get_device_name_by_index(i), devices.get_device_serial_number_by_index(i))
        for i in range(devices.get_count())
    ]


def colour_image(frame: Any, sdk: Any) -> np.ndarray:
    """The pixels of a colour frame, (height, width, 3) uint8 RGB, in a buffer of their own.

    ``ValueError`` for a format that is not in ``formats``, or a JPEG that cannot be decoded.
    """
    data = np.asarray(frame.get_data()).reshape(-1).view(np.uint8)
    shape = (frame.get_height(), frame.get_width(), 3)
    kind = frame.get_format()
    if kind == sdk.OBFormat.RGB:
        return np.array(data.reshape(shape), copy=True)
    if kind == sdk.OBFormat.BGR:
        return cv2.cvtColor(data.reshape(shape), cv2.COLOR_BGR2RGB)
    if kind == sdk.OBFormat.MJPG:
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if decoded is not None:
            return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    raise ValueError(f"cannot decode an image of format {kind}")


def formats(sdk: Any) -> tuple[Any, ...]:
    """The pixel formats that can be used, the cheapest first."""
    return sdk.OBFormat.RGB, sdk.OBFormat.BGR, sdk.OBFormat.MJPG


def find_device(sdk: Any, wanted: str) -> Any:
    """The device with that serial number, or the only one when ``wanted`` is empty."""
    devices = sdk.Context().query_devices()
    serials = [devices.get_device_serial_number_by_index(i) for i in range(devices.get_count())]
    if not serials:
        raise NoCamera("the SDK sees no Orbbec")
    if wanted and wanted not in serials:
        raise NoCamera("the SDK sees no Orbbec with that number")
    if not wanted and len(serials) > 1:
        raise NoCamera(f"serial_number is not given, and there are {', '.join(serials)}")
    return devices.get_device_by_serial_number(wanted or serials[0])


def find_profile(sdk: Any, pipeline: Any, width: int, height: int, fps: int) -> Any:
    """The stream of that size and rate, in the cheapest format that the device offers."""
    offered = pipeline.get_stream_profile_list(sdk.OBSensorType.COLOR_SENSOR)
    for kind in formats(sdk):
        try:
            return offered.get_video_stream_profile(width, height, kind, fps)
        except Exception:  # OBError derives from Exception alone: it does not offer this one
            continue
    raise NoCamera(f"it does not offer {width}x{height} at {fps} Hz")


def stream_orbbec(given: argparse.Namespace) -> None:
    """Opens the device and writes its images for ever; ``NoCamera`` when it gives no more."""
    try:
        sdk = load_sdk()
        pipeline = sdk.Pipeline(find_device(sdk, given.serial))
        settings = sdk.Config()
        settings.enable_stream(find_profile(sdk, pipeline, given.width, given.height, given.fps))
        pipeline.start(settings)
        say(given.pipe, HELLO, given.serial)
        heard = time.monotonic()
        while time.monotonic() - heard < SILENCE_S:
            frames = pipeline.wait_for_frames(WAIT_MS)
            frame = frames.get_color_frame() if frames is not None else None
            if frame is not None:
                heard = time.monotonic()
                arrival_ns = frame.get_system_timestamp_us() * 1000 or time.time_ns()
                send_image(given.pipe, colour_image(frame, sdk), frame.get_timestamp_us() * 1000, arrival_ns)
    except (NoCamera, OSError):
        raise
    except ImportError as error:
        raise NoCamera(str(error)) from error
    except Exception as error:  # whatever else the SDK raises: the camera has to be opened anew
        raise NoCamera(f"the SDK says: {error}") from error
    raise NoCamera(f"it gave no image for {SILENCE_S:.0f} s; its cable may be unplugged")


if __name__ == "__main__":
    serve("Writes an Orbbec's colour images into a pipe.", stream_orbbec)
