"""One camera and the thread that reads it: the newest image, and in words what keeps new ones from coming.

Every call into the camera is made by its own thread, a *worker*. A worker whose call does not return is
left behind and another one takes its place, with a camera object of its own: an SDK call that hangs can be
neither interrupted nor joined. Workers are daemons, so that one that hangs for ever does not keep the
program from ending.
"""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
from lerobot.cameras import Camera, CameraConfig
from lerobot.cameras.utils import make_cameras_from_configs

from collectors.camera_finding import require_plugged_in
from collectors.camera_stream import CapturedImage, TimestampedCamera

READ_SLICE_S = 0.2  # one read waits this long, so that a stop is noticed soon
OPENING_LIMIT_S = 40.0  # LeRobot's RealSense opens in up to three attempts with a reset between
MAX_LEFT_BEHIND = 3  # workers that hang; no more are started until one of them returns


class WrongImage(ValueError):
    """A camera delivers images of another size or kind than its settings announce."""


class CameraReader:
    """Reads one camera for as long as it is asked to, through unplugged cables and hung reads."""

    def __init__(
        self, name: str, config: CameraConfig, shape: tuple[int, int, int], *, retry_s: float, lost_s: float
    ) -> None:
        """``shape`` is what the images must be; ``lost_s`` without a new image counts as lost."""
        self.name = name
        self.config = config
        self.shape = shape
        self.retry_s = retry_s
        self.lost_s = lost_s
        self.reading_limit_s = READ_SLICE_S + 2 * lost_s  # a read of READ_SLICE_S that takes this long hangs
        self.clock = "arrival"
        self.first_error: Exception | None = None  # why the first attempt to open it failed
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._left_behind: list[_Worker] = []
        self._latest: CapturedImage | None = None
        self._arrived = time.monotonic()  # when the newest image arrived, monotonic seconds
        self._reason: str | None = None

    def start(self) -> None:
        """Starts the first worker; returns at once."""
        self._arrived = time.monotonic()
        self._worker = _Worker(self)

    @property
    def latest(self) -> CapturedImage | None:
        """The newest image, ``None`` before the first."""
        return self._latest

    @property
    def lost(self) -> str | None:
        """Why no new images come, ``None`` when they do."""
        reason, age_s = self._reason, time.monotonic() - self._arrived
        if reason is not None:
            return f"{reason}; no new image for {age_s:.1f} s"
        if age_s > self.lost_s:
            return f"no new image for {age_s:.1f} s"
        return None

    @property
    def opening(self) -> bool:
        """Whether the worker is still inside the camera's ``connect``."""
        worker = self._worker
        return worker is not None and worker.limit_s == OPENING_LIMIT_S

    def watch(self) -> None:
        """Replaces a worker whose call does not return; called every now and then by the set's own thread."""
        self._left_behind = [worker for worker in self._left_behind if worker.is_alive()]
        worker = self._worker
        if worker is None or worker.stopping.is_set():
            return
        if worker.is_alive() and not worker.hangs:
            return
        hangs = f"the camera does not answer ({worker.doing} hangs)"
        self._reason = hangs if worker.is_alive() else "its SDK ended the thread that reads it"
        if len(self._left_behind) < MAX_LEFT_BEHIND:
            worker.stopping.set()
            with self._lock:  # from here on the old worker's images are not taken any more
                self._worker = _Worker(self, pause_s=self.retry_s)
            self._left_behind.append(worker)

    def stop(self) -> None:
        """Asks the workers to end; returns at once."""
        for worker in self._workers():
            worker.stopping.set()

    def join(self, deadline: float) -> bool:
        """Waits until ``deadline`` (monotonic s) for the workers that do not hang; whether all ended."""
        for worker in self._workers():
            worker.join(timeout=0.0 if worker.hangs else max(0.0, deadline - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers())

    def _workers(self) -> list[_Worker]:
        return [*self._left_behind, *([self._worker] if self._worker is not None else [])]

    def take(self, worker: _Worker, image: np.ndarray, timestamp_ns: int) -> None:
        """A worker's new image; ignored from a worker that was left behind."""
        with self._lock:
            if worker is not self._worker or worker.stopping.is_set():
                return
            sequence = self._latest.sequence + 1 if self._latest is not None else 1
            self._latest = CapturedImage(image, timestamp_ns, sequence)
            self._arrived = time.monotonic()
            self._reason = None

    def failed(self, worker: _Worker, error: Exception) -> None:
        """A worker's camera failed."""
        with self._lock:
            if worker is not self._worker or worker.stopping.is_set():
                return
            self._reason = one_line(error)
            if self._latest is None and self.first_error is None:
                self.first_error = error

    def age_s(self) -> float:
        """Seconds since the newest image arrived."""
        return time.monotonic() - self._arrived


class _Worker(threading.Thread):
    """Opens the camera, reads it, closes it when it fails, and begins again, until told to stop."""

    def __init__(self, reader: CameraReader, pause_s: float = 0.0) -> None:
        super().__init__(name=f"camera {reader.name}", daemon=True)
        self.reader = reader
        self.pause_s = pause_s
        self.stopping = threading.Event()
        self.doing = "opening it"
        self.limit_s: float = OPENING_LIMIT_S
        self.call_began = time.monotonic()
        self.start()

    @property
    def hangs(self) -> bool:
        """Whether its call into the camera has taken longer than such a call may take."""
        return self.is_alive() and time.monotonic() - self.call_began > self.limit_s

    def run(self) -> None:
        self._calling("waiting", self.reader.reading_limit_s + self.pause_s)
        self.stopping.wait(self.pause_s)
        while not self.stopping.is_set():
            camera: Camera | None = None
            try:
                self._calling("opening it", OPENING_LIMIT_S)
                require_plugged_in(
                    self.reader.config.type, str(getattr(self.reader.config, "serial_number_or_name", ""))
                )
                camera = make_cameras_from_configs({self.reader.name: self.reader.config})[self.reader.name]
                # Ours need no warming up: the set waits for first images itself, and can be told to stop.
                camera.connect(warmup=not isinstance(camera, TimestampedCamera))
                self._read(camera)
            except Exception as error:  # whatever an SDK raises: the camera is lost, the episode goes on
                self.reader.failed(self, error)
            finally:
                self._close(camera)
            self._calling("waiting", self.reader.reading_limit_s + self.reader.retry_s)
            self.stopping.wait(self.reader.retry_s)

    def _read(self, camera: Camera) -> None:
        """Reads until told to stop; raises when the camera fails or gives nothing for too long."""
        timestamped = isinstance(camera, TimestampedCamera)
        self.reader.clock = camera.clock if timestamped else "arrival"
        opened = time.monotonic()
        while not self.stopping.is_set():
            self._calling("reading it", self.reader.reading_limit_s)
            try:
                if timestamped:
                    image, taken_ns = camera.read_timestamped(READ_SLICE_S * 1000)
                else:
                    # Copied, because SDKs hand out views of buffers that they use again.
                    image = np.array(camera.async_read(READ_SLICE_S * 1000), copy=True, order="C")
                    taken_ns = time.time_ns()
            except TimeoutError:
                # The first images may take their time, and a second of silence alone is no reason to reopen.
                if min(self.reader.age_s(), time.monotonic() - opened) > 2 * self.reader.lost_s:
                    raise
                continue
            check_image(image, self.reader.shape)
            self.reader.take(self, image, taken_ns)

    def _close(self, camera: Camera | None) -> None:
        if camera is None:
            return
        self._calling("closing it", OPENING_LIMIT_S / 4)
        with contextlib.suppress(Exception):  # LeRobot's cameras raise when they are not connected
            camera.disconnect()

    def _calling(self, what: str, limit_s: float) -> None:
        """Notes that a call begins, for ``CameraReader.watch``."""
        self.doing, self.limit_s, self.call_began = what, limit_s, time.monotonic()


def check_image(image: np.ndarray, shape: tuple[int, int, int]) -> None:
    """Raises ``WrongImage`` unless ``image`` is uint8 of that (height, width, 3)."""
    if image.dtype != np.uint8 or image.shape != shape:
        got = "x".join(str(side) for side in image.shape)
        raise WrongImage(
            f"delivers images of {got} {image.dtype}; the settings announce "
            f"{shape[0]}x{shape[1]}x3 uint8 (height x width x RGB)"
        )


def one_line(error: BaseException) -> str:
    """An exception's message as one line; where LeRobot's says nothing, that of its cause."""
    text = " ".join(str(error).split()) or type(error).__name__
    cause = error.__cause__
    if cause is None or not str(cause):
        return text
    if text.startswith("Error creating camera"):  # the rest is the whole configuration
        return one_line(cause)
    return f"{text} ({one_line(cause)})" if text.startswith("Failed to open") else text
