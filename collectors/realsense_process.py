"""Reads an Intel RealSense in a process of its own and writes its colour images into a pipe.

``collectors.azure_kinect_process`` says what goes into the pipe. The SDK is imported when it is started.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from collectors.azure_kinect_process import HELLO, IS_SYSTEM_TIME, SILENCE_S, NoCamera, say, send_image, serve
from collectors.camera_clock import DeviceClock

WAIT_MS = 500  # for one image
TRUSTED_NS = 1_000_000_000  # a time further than this from the arrival is not the system's


def colour_pixels(frame: Any) -> np.ndarray:
    """The pixels of an rgb8 ``rs.video_frame``: (height, width, 3) uint8, in the SDK's own buffer."""
    return np.asanyarray(frame.get_data())


def capture_time_ns(frame: Any, clock: DeviceClock, arrival_ns: int) -> int:
    """When an ``rs.frame`` was taken, ns since 1970.

    The SDK maps the device's time to the system's by itself (*global time*) where the camera supports it;
    otherwise the device's own time, and that of a recording, is mapped by ``clock``.
    """
    device_ns = round(frame.get_timestamp() * 1e6)  # the SDK counts ms
    mapped_by_sdk = "hardware_clock" not in str(frame.get_frame_timestamp_domain())
    if mapped_by_sdk and abs(arrival_ns - device_ns) < TRUSTED_NS:
        return min(device_ns, arrival_ns)
    return clock.system_ns(device_ns, arrival_ns)


def open_pipeline(given: argparse.Namespace) -> Any:
    """The running ``rs.pipeline`` of the camera or the recording that the command line names."""
    try:
        rs = importlib.import_module("pyrealsense2")
    except ImportError as error:
        raise NoCamera(f"pyrealsense2 cannot be loaded: {error}") from error
    settings = rs.config()
    if given.recording:
        if not Path(given.recording).is_file():
            raise NoCamera("there is no such file")
        rs.config.enable_device_from_file(settings, given.recording, repeat_playback=True)
    else:
        serials = [device.get_info(rs.camera_info.serial_number) for device in rs.context().query_devices()]
        if given.serial not in serials:
            raise NoCamera("the SDK sees no RealSense with that number")
        settings.enable_device(given.serial)
    settings.enable_stream(rs.stream.color, given.width, given.height, rs.format.rgb8, given.fps)
    pipeline = rs.pipeline()
    try:
        pipeline.start(settings)
    except RuntimeError as error:
        raise NoCamera(f"the SDK refuses: {error}") from error
    return pipeline


def stream_realsense(given: argparse.Namespace) -> None:
    """Opens the device and writes its images for ever; ``NoCamera`` when it gives no more."""
    pipeline = open_pipeline(given)
    say(given.pipe, HELLO, given.serial)
    clock, heard = DeviceClock(), time.monotonic()
    while time.monotonic() - heard < SILENCE_S:
        try:
            arrived, frames = pipeline.try_wait_for_frames(WAIT_MS)
        except RuntimeError as error:
            raise NoCamera(f"the SDK says: {error}") from error
        now_ns = time.time_ns()
        frame = frames.get_color_frame() if arrived else None
        if frame:
            heard = time.monotonic()
            taken_ns = capture_time_ns(frame, clock, now_ns)
            send_image(given.pipe, colour_pixels(frame), IS_SYSTEM_TIME, taken_ns)
    raise NoCamera(f"it gave no image for {SILENCE_S:.0f} s; its cable may be unplugged")


if __name__ == "__main__":
    serve("Writes an Intel RealSense's colour images into a pipe.", stream_realsense)
