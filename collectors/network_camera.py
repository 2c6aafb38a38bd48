"""The camera type ``network_camera``: video over the network, such as from the camera in a Gen3's wrist.

Images are stamped when they have arrived and are decoded: encoding and the network come before that.
"""

from __future__ import annotations

import threading
import time

import av

from collectors.camera_stream import StreamedCamera
from collectors.config_network_camera import NetworkCameraConfig

__all__ = ["NetworkCamera", "NetworkCameraConfig"]

OPENING_S = 5.0
SILENCE_S = 2.0  # no data for so long ends the connection
# Begin with the first images instead of studying seconds of them, and keep none back.
LIVE = {
    "fflags": "nobuffer",
    "flags": "low_delay",
    "formatprobesize": "4096",  # bytes
    "probesize": "20000",  # bytes
    "analyzeduration": "200000",  # microseconds
}


class NetworkCamera(StreamedCamera):
    """A LeRobot camera over FFmpeg, by PyAV."""

    clock = "arrival"

    def __init__(self, config: NetworkCameraConfig) -> None:
        """Remembers the settings; ``connect`` opens the stream."""
        super().__init__(config)
        self.config = config
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __str__(self) -> str:
        """As LeRobot's cameras name themselves."""
        return f"NetworkCamera({self.config.url})"

    def _start(self) -> None:
        options = dict(LIVE)
        if self.config.url.startswith("rtsp:"):
            options["rtsp_transport"] = self.config.transport
        try:
            container = av.open(self.config.url, options=options, timeout=(OPENING_S, SILENCE_S))
        except OSError as error:  # av.FFmpegError derives from it where the system gives the reason
            raise ConnectionError(f"it cannot be reached: {error.strerror or error}") from error
        except av.FFmpegError as error:
            raise ConnectionError(f"it sends nothing that can be decoded: {error}") from error
        if not container.streams.video:
            container.close()
            raise ConnectionError("it sends no video")
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(container, self._stopping), daemon=True, name=str(self)
        )
        self._thread.start()

    def _stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=SILENCE_S + 1.0)

    def _run(self, container: av.container.InputContainer, stopping: threading.Event) -> None:
        try:
            with container:
                for frame in container.decode(video=0):
                    if stopping.is_set():
                        return
                    arrival_ns = time.time_ns()
                    self._deliver(frame.to_ndarray(format="rgb24"), arrival_ns)
            reason = "it ended its video"
        except (av.FFmpegError, OSError) as error:
            reason = f"its video broke off: {error}"
        if not stopping.is_set():
            self._fail(reason)
