"""A camera whose SDK runs in a process of its own, which sends the images through a pipe.

SDKs hang, abort, hold Python's lock for seconds (RealSense's does while it looks for a camera that is gone)
and need libraries that we cannot have. In a process of its own such an SDK costs this one camera, and only
until the process has been replaced: ending a process always frees its device.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import threading
from abc import abstractmethod
from pathlib import Path
from typing import IO, NamedTuple

import cv2
import numpy as np
from lerobot.cameras import CameraConfig

from collectors.azure_kinect_process import ERROR, HEADER, IMAGE, IS_SYSTEM_TIME, MAGIC
from collectors.camera_clock import DeviceClock
from collectors.camera_stream import StreamedCamera

PACKAGE_FOLDER = Path(__file__).parent.parent  # from where a process can import this project
STARTING_LIMIT_S = 20.0
PIPE_BYTES = 1 << 20  # what Linux allows without privileges; fewer turns between the two processes


class _Message(NamedTuple):
    """What the process sends; see ``collectors.azure_kinect_process``."""

    kind: int
    payload: bytearray
    device_ns: int
    arrival_ns: int
    size: tuple[int, int]  # height and width in pixels


class ProcessCamera(StreamedCamera):
    """A LeRobot camera over a process that reads the device; a subclass says how to start that process."""

    clock = "device"

    def __init__(self, config: CameraConfig) -> None:
        """Remembers the settings; ``connect`` starts the process."""
        super().__init__(config)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None  # what the SDK prints
        self._pipe = -1
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _command(self) -> list[str]:
        """The interpreter, what it runs, and the options that only this type has."""

    def _start(self) -> None:
        self._stopping = threading.Event()
        ours, theirs = os.pipe()
        self._pipe = ours
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed in _stop, with the process
        try:
            size = ["--width", str(self.width), "--height", str(self.height), "--fps", str(self.fps)]
            self._process = subprocess.Popen(
                [*self._command(), "--pipe", str(theirs), *size],
                cwd=PACKAGE_FOLDER,
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(theirs,),
                start_new_session=True,  # Ctrl-C is for the recorder; it closes its cameras in its own order
            )
        except OSError as error:
            self._stop()
            raise ConnectionError(f"{self._command()[0]!r} cannot be run: {error.strerror}") from error
        finally:
            os.close(theirs)
        try:
            self._await_hello()
        except ConnectionError:
            self._stop()
            raise
        self._thread = threading.Thread(
            target=self._run, args=(self._pipe, self._stopping), daemon=True, name=str(self)
        )
        self._thread.start()

    def _await_hello(self) -> None:
        readable, _, _ = select.select([self._pipe], [], [], STARTING_LIMIT_S)
        if not readable:
            raise ConnectionError(f"its process did not start within {STARTING_LIMIT_S:.0f} s")
        message = self._message(self._pipe)
        if message is None:
            raise ConnectionError(self._why_it_ended())
        if message.kind == ERROR:
            raise ConnectionError(message.payload.decode(errors="replace"))

    def _run(self, pipe: int, stopping: threading.Event) -> None:
        clock = DeviceClock()
        while not stopping.is_set():
            message = self._message(pipe)
            if message is not None and message.kind == IMAGE:
                taken_ns = message.arrival_ns
                if message.device_ns != IS_SYSTEM_TIME:
                    taken_ns = clock.system_ns(message.device_ns, taken_ns)
                pixels = np.frombuffer(message.payload, dtype=np.uint8).reshape(*message.size, -1)
                bgra = pixels.shape[2] == 4
                self._deliver(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB) if bgra else pixels, taken_ns)
                continue
            if not stopping.is_set():
                said = message.payload.decode(errors="replace") if message is not None else ""
                self._fail(said or self._why_it_ended())
            return

    def _message(self, pipe: int) -> _Message | None:
        """The process's next message; ``None`` when it has ended."""
        header = self._read(pipe, HEADER.size)
        if header is None:
            return None
        magic, kind, count, device_ns, arrival_ns, height, width = HEADER.unpack(header)
        payload = self._read(pipe, count) if magic == MAGIC else None
        return None if payload is None else _Message(kind, payload, device_ns, arrival_ns, (height, width))

    @staticmethod
    def _read(pipe: int, size: int) -> bytearray | None:
        """Exactly ``size`` bytes; ``None`` when the process has closed its end."""
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            try:
                count = os.readv(pipe, [rest])
            except OSError:
                return None
            if count == 0:
                return None
            rest = rest[count:]
        return data

    def _why_it_ended(self) -> str:
        """The process's exit status and the last line that it or the SDK printed."""
        status: int | str = "unknown"
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(timeout=1.0)
        printed = b""
        if self._log is not None and not self._log.closed:
            self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4096))
            printed = self._log.read()
        lines = [line.strip() for line in printed.decode(errors="replace").splitlines() if line.strip()]
        return f"its process ended with status {status}" + (f" ({lines[-1]})" if lines else "")

    def _stop(self) -> None:
        """Ends the process, by force if it hangs, and then the thread, whose read ends with the process."""
        self._stopping.set()
        if self._process is not None:
            with contextlib.suppress(OSError):
                if self._process.stdin is not None:
                    self._process.stdin.close()
            try:
                self._process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=1.0)
        if self._thread is not None:
            self._thread.join(timeout=2.0)
        if self._pipe >= 0 and not (self._thread is not None and self._thread.is_alive()):
            os.close(self._pipe)
        if self._log is not None:
            self._log.close()
        self._process, self._thread, self._log, self._pipe = None, None, None, -1
