"""LeRobot's OpenCV camera on a machine without video devices: it reads a pipe that JPEGs are written into.

All of it is LeRobot's own code but one thing: OpenCV cannot *set* the size and rate of anything but a video
device, so this one takes them as they come.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from lerobot.cameras.opencv import OpenCVCamera

from tests.collectors.config_opencv_pipe import OpenCVPipeConfig

__all__ = ["FFMPEG_OPTIONS", "JpegSource", "OpenCVPipe", "OpenCVPipeConfig"]

FFMPEG_OPTIONS = "probesize;20000|analyzeduration;200000|fflags;nobuffer|formatprobesize;4096"
"""For the environment variable OPENCV_FFMPEG_CAPTURE_OPTIONS: begin at once, as a video device does."""


class OpenCVPipe(OpenCVCamera):
    """LeRobot's camera that takes size and rate as they come."""

    def _configure_capture_settings(self) -> None:
        self.width = self.height = self.fps = None
        super()._configure_capture_settings()


class JpegSource:
    """A device: a named pipe and a thread that writes 64x48 pictures into it, 50 a second, for one reader."""

    def __init__(self, path: Path) -> None:
        """``path`` ends in ``.mjpeg``, by which FFmpeg knows what comes."""
        self.path = path
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def plug_in(self) -> None:
        """The device is there."""
        os.mkfifo(self.path)
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """The device is gone, also from the file system."""
        self.path.unlink(missing_ok=True)
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            try:
                pipe = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads
                time.sleep(0.005)
                continue
            os.set_blocking(pipe, True)
            with contextlib.suppress(BrokenPipeError):
                while not self._stopping.wait(0.02):
                    number += 1
                    os.write(pipe, _jpeg(number))
            os.close(pipe)


def _jpeg(number: int) -> bytes:
    """A reddish picture with a bright bar that moves."""
    image = np.full((48, 64, 3), (40, 60, 160), np.uint8)  # BGR
    left = number % 15 * 4
    image[:, left : left + 4] = 230
    return cv2.imencode(".jpg", image)[1].tobytes()
