"""Reads an Azure Kinect in an interpreter of its own and writes its colour images into a pipe.

Its SDK, ``pyk4a-bundle``, needs NumPy below 2 and so cannot share this project's environment. This file runs
in one that holds nothing but ``pyk4a`` and ``numpy``: it imports nothing else beyond Python's own library,
and neither of the two until it is started.

    python azure_kinect_process.py --pipe FD --width 1280 --height 720 --fps 30 [--serial 000123]

Into the file descriptor ``--pipe`` goes one message after the other: :data:`HEADER`, then as many bytes as
it announces. Kind ``HELLO`` comes once the device runs and ``ERROR`` (UTF-8 text, one line) when it does
not; ``IMAGE`` is height x width x 4 uint8 BGRA or x 3 RGB. It ends when its standard input is closed, which
also happens when its parent dies. The processes of other cameras speak the same way.
"""

from __future__ import annotations

import argparse
import importlib
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

HEADER = struct.Struct("<4sBQqqII")
"""Magic, kind, bytes that follow, device time in ns, arrival in ns since 1970, height and width in pixels.

A device time of ``IS_SYSTEM_TIME`` says that the arrival is already the time at which the image was taken.
"""
MAGIC = b"AZK1"
HELLO, ERROR, IMAGE = 0, 1, 2
IS_SYSTEM_TIME = 0

SIZES = {
    (1280, 720): "RES_720P",
    (1920, 1080): "RES_1080P",
    (2560, 1440): "RES_1440P",
    (2048, 1536): "RES_1536P",
    (3840, 2160): "RES_2160P",
    (4096, 3072): "RES_3072P",
}
"""The device's colour sizes (width, height) and their names in the SDK."""

TIMEOUT_MS = 500  # of one capture
SILENCE_S = 5.0  # captures that time out for so long mean that the device is gone


class NoCamera(Exception):
    """The device cannot be used, or no longer, in words."""


def open_device(serial: str, width: int, height: int, fps: int) -> Any:
    """The running device with that serial number, or the only one when ``serial`` is empty."""
    try:
        pyk4a = importlib.import_module("pyk4a")
    except ImportError as error:
        raise NoCamera(
            f"{sys.executable} cannot import pyk4a ({error}); install it there: "
            f"{sys.executable} -m pip install 'numpy<2' pyk4a-bundle"
        ) from error
    settings = pyk4a.Config(
        color_resolution=pyk4a.ColorResolution[SIZES[width, height]],
        camera_fps=pyk4a.FPS[f"FPS_{fps}"],
        color_format=pyk4a.ImageFormat.COLOR_BGRA32,
        depth_mode=pyk4a.DepthMode.OFF,
        synchronized_images_only=False,
    )
    count = pyk4a.connected_device_count()
    if count == 0:
        raise NoCamera("the SDK sees no Azure Kinect; both its power and its USB cable must be plugged in")
    if count > 1 and not serial:
        raise NoCamera(f"serial_number is not given, and {count} are connected")
    others = []
    for index in range(count):
        device = pyk4a.PyK4A(settings, device_id=index)
        try:
            device.open()
            if serial and device.serial != serial:
                others.append(device.serial)
                device.close()
                continue
            device.start()
        except pyk4a.K4AException as error:
            if serial:  # the wanted one may be another that is free
                others.append(f"number {index}, which cannot be opened")
                continue
            raise NoCamera(f"it cannot be opened; another program may be using it ({error})") from error
        return device
    raise NoCamera(f"the SDK sees no Azure Kinect with that number, only {', '.join(others)}")


def stream(device: Any, pipe: int) -> None:
    """Writes images for ever; ``NoCamera`` when the device gives no more."""
    pyk4a = importlib.import_module("pyk4a")
    heard = time.monotonic()
    while True:
        try:
            capture = device.get_capture(TIMEOUT_MS)
        except pyk4a.K4ATimeoutException:
            if time.monotonic() - heard > SILENCE_S:
                raise NoCamera(f"it gave no image for {SILENCE_S:.0f} s") from None
            continue
        except pyk4a.K4AException as error:
            raise NoCamera(f"it stopped giving images; its cable may be unplugged ({error!r})") from error
        arrival_ns = time.time_ns()
        pixels = capture.color
        if pixels is None:
            continue
        heard = time.monotonic()
        send_image(pipe, pixels, capture.color_timestamp_usec * 1000, arrival_ns)


def send_image(pipe: int, pixels: Any, device_ns: int, arrival_ns: int) -> None:
    """Writes an image, an array (height, width, 3 or 4) uint8."""
    height, width = pixels.shape[:2]
    write(pipe, HEADER.pack(MAGIC, IMAGE, pixels.nbytes, device_ns, arrival_ns, height, width))
    write(pipe, pixels if pixels.flags.c_contiguous else pixels.copy())


def write(pipe: int, data: Any) -> None:
    """Writes all of ``data`` (bytes or an array)."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[os.write(pipe, rest) :]


def say(pipe: int, kind: int, text: str) -> None:
    """Writes a message of text."""
    payload = text.encode()
    write(pipe, HEADER.pack(MAGIC, kind, len(payload), 0, time.time_ns(), 0, 0) + payload)


def end_with_parent() -> None:
    """Ends this process at once when standard input is closed, also while the SDK hangs."""
    while os.read(0, 64):
        pass
    os._exit(0)


def serve(describe: str, stream_device: Callable[[argparse.Namespace], None]) -> NoReturn:
    """A camera's process: runs ``stream_device`` with the command line and ends, with status 1 on failure."""
    parser = argparse.ArgumentParser(description=describe)
    parser.add_argument("--pipe", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--fps", type=int, required=True)
    parser.add_argument("--serial", default="")
    parser.add_argument("--recording", default="")
    given = parser.parse_args()
    threading.Thread(target=end_with_parent, daemon=True).start()
    status = 0
    try:
        stream_device(given)
    except NoCamera as error:
        say(given.pipe, ERROR, " ".join(str(error).split()))
        status = 1
    except BrokenPipeError:  # the parent closed its end
        pass
    sys.stdout.flush()
    os._exit(status)  # an SDK may hang when it is taken down with a device that is gone


def stream_kinect(given: argparse.Namespace) -> None:
    """Opens the device and writes its images for ever."""
    device = open_device(given.serial, given.width, given.height, given.fps)
    say(given.pipe, HELLO, device.serial or "")
    stream(device, given.pipe)


if __name__ == "__main__":
    serve("Writes an Azure Kinect's colour images into a pipe.", stream_kinect)
