"""All cameras of a robot, each read by a thread of its own, through a whole day of recording.

An unplugged cable, a read that hangs or a camera process that dies costs no frame of the episode: the last
image stays, with its old time, ``lost`` says why, and the camera comes back by itself when it can.

Times: a camera that knows when an image was taken says so (``clocks`` gives ``"device"``); the images of
all others are stamped when they arrive in our thread (``"arrival"``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from lerobot.cameras import CameraConfig

from collectors.camera_errors import check_settings, opening_error
from collectors.camera_reader import CameraReader
from collectors.camera_stream import CapturedImage
from pipeline.errors import Failure

__all__ = ["CameraSet", "CapturedImage"]

WATCH_EVERY_S = 0.1
CLOSING_LIMIT_S = 3.0  # how long disconnect waits; a thread that hangs longer is left behind
PERIODS_UNTIL_LOST = 5  # a slow camera is not lost between two of its images


class CameraSet:
    """Cameras by name: ``features`` before, ``latest`` and ``lost`` while, connected.

    ``latest`` and ``lost`` may be called from any thread and never wait for a camera.
    """

    def __init__(
        self,
        configs: Mapping[str, CameraConfig],
        *,
        retry_every_s: float = 1.0,
        lost_after_s: float = 1.0,
        first_image_s: float = 20.0,
    ) -> None:
        """``configs`` are LeRobot's, of any registered type; ``InputError`` for settings that cannot work.

        A camera without a new image for ``lost_after_s`` is lost; ``connect`` waits up to ``first_image_s``
        for each camera's first image.
        """
        self.configs = dict(configs)
        self.features: dict[str, tuple[int, int, int]] = check_settings(self.configs)
        self._retry_every_s = retry_every_s
        self._lost_after_s = lost_after_s
        self._first_image_s = first_image_s
        self._readers: dict[str, CameraReader] = {}
        self._stopping = threading.Event()
        self._watching: threading.Thread | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the cameras are being read, lost ones included."""
        return bool(self._readers)

    @property
    def clocks(self) -> dict[str, str]:
        """Where each connected camera's times come from: ``"device"`` or ``"arrival"``."""
        return {name: reader.clock for name, reader in self._readers.items()}

    @property
    def lost(self) -> dict[str, str]:
        """Cameras that give no new image, name to why in words; empty when all is well."""
        return {name: why for name, reader in self._readers.items() if (why := reader.lost) is not None}

    def latest(self) -> dict[str, CapturedImage]:
        """Each camera's newest image; a lost camera's last one, with its old time. Empty when unconnected."""
        newest = {name: reader.latest for name, reader in self._readers.items()}
        return {name: image for name, image in newest.items() if image is not None}

    def connect(self) -> None:
        """Starts one thread a camera and returns when each has given an image; harmless when connected.

        Raises ``InputError`` for a camera that cannot be opened or delivers other images than announced,
        ``Failure`` for one that opens and gives no image; nothing stays open then. One line either way.
        """
        if self._readers or not self.configs:
            return
        for name, config in self.configs.items():
            lost_s = max(self._lost_after_s, PERIODS_UNTIL_LOST / (config.fps or 30))
            self._readers[name] = CameraReader(
                name, config, self.features[name], retry_s=self._retry_every_s, lost_s=lost_s
            )
        for reader in self._readers.values():
            reader.start()
        try:
            failed = self._wait_for_first_images()
        except BaseException:
            self.disconnect()
            raise
        if failed is not None:
            self.disconnect()  # first: looking for what is connected takes a while
            raise opening_error(failed.name, failed.config, failed.first_error)
        self._stopping.clear()
        self._watching = threading.Thread(target=self._watch, name="camera watch", daemon=True)
        self._watching.start()

    def _wait_for_first_images(self) -> CameraReader | None:
        """The first camera that cannot be opened, if any; ``Failure`` for one that gives no image."""
        deadline = time.monotonic() + self._first_image_s
        waiting = list(self._readers.values())
        while waiting:
            for reader in waiting:
                if reader.first_error is not None:
                    return reader
                if time.monotonic() > deadline and reader.latest is None:
                    what = "did not open" if reader.opening else "opened, but gave no image"
                    raise Failure(
                        f"camera {reader.name!r} {what} within {self._first_image_s:g} s: unplug it and "
                        f"plug it in again, and see that no other program uses it ({reader.config.type})"
                    )
            waiting = [reader for reader in waiting if reader.latest is None]
            time.sleep(0.005)
        return None

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_EVERY_S):
            for reader in list(self._readers.values()):
                reader.watch()

    def disconnect(self) -> None:
        """Closes the cameras; harmless when not connected, and done within seconds even if a read hangs."""
        self._stopping.set()
        if self._watching is not None:
            self._watching.join(timeout=1.0)
            self._watching = None
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.stop()
        deadline = time.monotonic() + CLOSING_LIMIT_S
        for reader in readers.values():
            reader.join(deadline)
