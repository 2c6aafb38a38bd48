"""What our own cameras share: images that arrive in a thread, each with the time at which it was taken.

A LeRobot ``Camera`` tells no capture time. Cameras that know one are :class:`TimestampedCamera`;
``collectors.cameras`` uses it and stamps the images of all other cameras when they arrive.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from lerobot.cameras import Camera, CameraConfig
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

FIRST_IMAGE_S = 10.0  # how long connect(warmup=True) waits for the first image


@dataclass(frozen=True)
class CapturedImage:
    """One image and when it was taken.

    ``image`` is (height, width, 3) uint8 RGB and belongs to whoever asked: no camera writes into it again.
    ``timestamp_ns`` is ns since 1970. ``sequence`` counts the new images of one camera, from 1.
    """

    image: np.ndarray
    timestamp_ns: int
    sequence: int


@runtime_checkable
class TimestampedCamera(Protocol):
    """A LeRobot camera that tells when its images were taken."""

    @property
    def clock(self) -> str:
        """Where the time comes from: ``"device"`` (mapped to the system clock) or ``"arrival"``."""
        ...

    def read_timestamped(self, timeout_ms: float) -> tuple[np.ndarray, int]:
        """The next new image, (height, width, 3) uint8, never reused, and when it was taken, ns since 1970.

        Raises ``TimeoutError`` when none comes in time, ``ConnectionError`` when the camera is gone.
        """
        ...


class StreamedCamera(Camera):
    """A LeRobot ``Camera`` over a device that delivers images from a thread of its own.

    A subclass opens the device in :meth:`_start` and closes it in :meth:`_stop`; its thread calls
    :meth:`_deliver` for each image and :meth:`_fail` once when the device is gone.
    """

    clock = "arrival"

    def __init__(self, config: CameraConfig) -> None:
        """Remembers the settings; ``connect`` opens the device."""
        super().__init__(config)
        self._changed = threading.Condition()
        self._image: np.ndarray | None = None
        self._timestamp_ns = 0
        self._arrived = 0.0  # monotonic seconds
        self._fresh = False
        self._fault: str | None = None
        self._opened = False

    @abstractmethod
    def _start(self) -> None:
        """Opens the device and starts its thread; ``ConnectionError`` in words where that fails."""

    @abstractmethod
    def _stop(self) -> None:
        """Stops the thread and closes the device; must not wait for it for more than a few seconds."""

    @property
    def is_connected(self) -> bool:
        """Whether the device is open and has not failed since."""
        return self._opened and self._fault is None

    def connect(self, warmup: bool = True) -> None:
        """Opens the device; with ``warmup`` also waits for the first image.

        Raises ``DeviceAlreadyConnectedError``, or ``ConnectionError`` in words: absent, busy, no image.
        """
        if self._opened:
            raise DeviceAlreadyConnectedError(f"{self} is already connected")
        with self._changed:
            self._image, self._fresh, self._fault = None, False, None
        self._start()
        self._opened = True
        if warmup:
            try:
                self._wait_for_first_image()
            except ConnectionError:
                self.disconnect()
                raise

    def _wait_for_first_image(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._image is not None or self._fault, timeout=FIRST_IMAGE_S)
            if self._image is None:
                raise ConnectionError(self._fault or f"opened, but gave no image for {FIRST_IMAGE_S:.0f} s")

    def disconnect(self) -> None:
        """Closes the device; harmless when not connected."""
        if self._opened:
            self._opened = False
            self._stop()
        with self._changed:
            self._image = None
            self._changed.notify_all()

    def read_timestamped(self, timeout_ms: float) -> tuple[np.ndarray, int]:
        """See :class:`TimestampedCamera`."""
        if not self._opened:
            raise DeviceNotConnectedError(f"{self} is not connected")
        with self._changed:
            self._changed.wait_for(
                lambda: self._fresh or self._fault or not self._opened, timeout=timeout_ms / 1000
            )
            if self._image is not None and self._fresh:
                self._fresh = False
                return self._image, self._timestamp_ns
            if self._fault is not None:
                raise ConnectionError(self._fault)
        if not self._opened:
            raise DeviceNotConnectedError(f"{self} was disconnected")
        raise TimeoutError(f"{self} gave no new image for {timeout_ms:.0f} ms")

    def async_read(self, timeout_ms: float = 200) -> np.ndarray:
        """The next new image, (height, width, 3) uint8 RGB; ``TimeoutError`` when none comes in time."""
        return self.read_timestamped(timeout_ms)[0]

    def read(self) -> np.ndarray:
        """The next image that arrives after this call, (height, width, 3) uint8 RGB."""
        with self._changed:
            self._fresh = False
        return self.async_read(timeout_ms=FIRST_IMAGE_S * 1000)

    def read_latest(self, max_age_ms: int = 500) -> np.ndarray:
        """The newest image without waiting, read before or not; ``TimeoutError`` when older than that."""
        if not self._opened:
            raise DeviceNotConnectedError(f"{self} is not connected")
        with self._changed:
            image, arrived = self._image, self._arrived
        if image is None:
            raise RuntimeError(f"{self} has given no image yet")
        age_ms = (time.monotonic() - arrived) * 1000
        if age_ms > max_age_ms:
            raise TimeoutError(f"the newest image of {self} is {age_ms:.0f} ms old, over {max_age_ms} ms")
        return image

    def _deliver(self, image: np.ndarray, timestamp_ns: int) -> None:
        """For the device's thread: a new image (height, width, 3) uint8 RGB in a buffer of its own."""
        with self._changed:
            self._image, self._timestamp_ns, self._fresh = image, timestamp_ns, True
            self._arrived = time.monotonic()
            self._changed.notify_all()

    def _fail(self, reason: str) -> None:
        """For the device's thread: the device is gone, and why."""
        with self._changed:
            self._fault = reason
            self._changed.notify_all()

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        """The devices that are connected; a subclass that can list them overrides this."""
        return []
