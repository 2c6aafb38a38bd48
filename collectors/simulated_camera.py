"""The camera type ``simulated_camera``: a device with its own rate that draws a cheap, changing picture.

Each picture holds its frame number as black and white blocks that survive JPEG, so that a test can tell
which image was recorded. A :class:`SimulatedCable` unplugs the device, hangs it or delays its images,
also from another process.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from collectors.camera_stream import StreamedCamera
from collectors.config_simulated_camera import SimulatedCameraConfig

__all__ = ["SimulatedCable", "SimulatedCamera", "SimulatedCameraConfig", "frame_number"]

BITS = 32
COLUMNS = 16  # blocks across the picture; two rows of them hold the frame number
POLL_S = 0.02  # how often a hung device looks whether it may go on


class SimulatedCable:
    """What is wrong with a simulated device, kept in a file; one word, and seconds where it delays."""

    def __init__(self, path: Path) -> None:
        """``path`` goes into the config's ``cable``; no file means that all is well."""
        self.path = path

    def unplug(self) -> None:
        """Reads fail at once and the device cannot be opened."""
        self._write("unplugged")

    def hang(self) -> None:
        """Reads do not return, whatever their time-out, until another word is written."""
        self._write("hung")

    def silence(self) -> None:
        """The device stays open but gives no images: reads time out."""
        self._write("silent")

    def delay(self, seconds: float) -> None:
        """Images arrive that long after they were taken, with the time at which they were taken."""
        self._write(f"late {seconds}")

    def mend(self) -> None:
        """All is well again."""
        self._write("")

    def read(self) -> tuple[str, float]:
        """The word (empty when all is well) and the seconds."""
        try:
            word, _, seconds = self.path.read_text(encoding="ascii").partition(" ")
        except FileNotFoundError:
            return "", 0.0
        return word, float(seconds or 0)

    def _write(self, text: str) -> None:
        """By renaming: the device must never read half a word."""
        aside = self.path.with_name(f"{self.path.name}.{os.getpid()}.{threading.get_ident()}")
        aside.write_text(text, encoding="ascii")
        aside.replace(self.path)


def frame_number(image: np.ndarray) -> int:
    """The frame number that a simulated picture (height, width, 3) uint8 holds, also after JPEG."""
    height, width = _block(image.shape[1])
    centres = image[height // 2 : 2 * height : height, width // 2 : COLUMNS * width : width, 1]
    bits = (centres.reshape(-1) > 127).astype(np.uint8)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _block(image_width: int) -> tuple[int, int]:
    """Height and width of one block, in pixels."""
    width = image_width // COLUMNS
    return min(width, 16), width


class SimulatedCamera(StreamedCamera):
    """A LeRobot camera over a simulated device; the stamps are the times at which pictures were drawn."""

    clock = "device"

    def __init__(self, config: SimulatedCameraConfig) -> None:
        """Remembers the settings; ``connect`` starts the device."""
        super().__init__(config)
        self.config = config
        self._cable = SimulatedCable(config.cable) if config.cable is not None else None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __str__(self) -> str:
        """As LeRobot's cameras name themselves."""
        return f"SimulatedCamera({self.width}x{self.height} at {self.fps} Hz)"

    def read_timestamped(self, timeout_ms: float) -> tuple[np.ndarray, int]:
        """As every streamed camera; while the device hangs, it does not return."""
        while self._trouble()[0] == "hung" and not self._stopping.is_set():
            time.sleep(POLL_S)
        return super().read_timestamped(timeout_ms)

    def _trouble(self) -> tuple[str, float]:
        return self._cable.read() if self._cable is not None else ("", 0.0)

    def _start(self) -> None:
        if self._trouble()[0] == "unplugged":
            raise ConnectionError("not found: the simulated cable is unplugged")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stopping,), daemon=True, name=str(self))
        self._thread.start()

    def _stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def _run(self, stopping: threading.Event) -> None:
        """The device: one picture a period, whoever reads them."""
        background = _background(self.config)
        period = 1.0 / (self.fps or 30)
        number, due = 0, time.monotonic()
        pending: list[tuple[float, np.ndarray, int]] = []  # when to deliver, what, when it was taken
        while not stopping.wait(max(0.0, due - time.monotonic())):
            number += 1
            due = max(due + period, time.monotonic() - period)  # a starved device skips, it does not rush
            word, late_s = self._trouble()
            if word == "unplugged":
                self._fail("unplugged (the simulated cable says so)")
                return
            if word not in ("hung", "silent"):
                image = _picture(background, number, self.config.phase)
                pending.append((time.monotonic() + late_s, image, time.time_ns()))
            while pending and pending[0][0] <= time.monotonic():
                _, image, taken_ns = pending.pop(0)
                self._deliver(image, taken_ns)

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        """One, always."""
        return [{"name": "simulated camera", "type": "simulated_camera", "id": "simulated"}]


def _background(config: SimulatedCameraConfig) -> np.ndarray:
    """A gradient (height, width, 3) uint8 that is drawn once."""
    height, width = config.height or 0, config.width or 0
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.linspace(30, 220, width, dtype=np.uint8)
    image[..., 1] = np.linspace(30, 220, height, dtype=np.uint8)[:, None]
    image[..., 2] = 90
    return image


def _picture(background: np.ndarray, number: int, phase: int) -> np.ndarray:
    """The background with the frame number in blocks at the top and a red bar that moves by 4 pixels."""
    image = background.copy()
    width = image.shape[1]
    block_height, block_width = _block(width)
    left = (number * 4 + phase) % (width - 16)
    image[2 * block_height :, left : left + 16] = (230, 40, 40)
    bits = np.unpackbits(np.frombuffer(number.to_bytes(BITS // 8, "big"), dtype=np.uint8)) * np.uint8(255)
    blocks = bits.reshape(2, COLUMNS).repeat(block_height, axis=0).repeat(block_width, axis=1)
    image[: 2 * block_height, : COLUMNS * block_width] = blocks[..., None]
    return image
