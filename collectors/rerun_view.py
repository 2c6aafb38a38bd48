"""``--view``: the cameras and the numbers of a running session in Rerun, an optional viewer.

It costs the recording nothing that matters: images are made small and turned into JPEG in a thread of its
own, and what that thread does not come round to is not shown. Needs the extra ``viz``
(``pip install 'kinova-recap[viz]'``).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from collectors.telemetry import Snapshot
from pipeline.episode import ACTION_FIELD, STATE_FIELDS, Field, Source
from pipeline.errors import InputError, one_line

_LOG = logging.getLogger(__name__)
_IMAGE_WIDTH = 320  # pixels; enough to see what goes on
_JPEG_QUALITY = 75
_MEMORY_LIMIT = "2GB"  # of the viewer, which forgets what is oldest then
_STOP_TIMEOUT_S = 5.0


class RerunView:
    """A ``collectors.telemetry.Telemetry`` that shows in Rerun; a context manager.

    Cameras are ``cameras/NAME``; the state's fields, ``action`` (where an observation comes with one) and
    ``driver`` (0 teleop, 1 policy, 2 intervention) are time series; ``events`` is text.
    """

    def __init__(self, save_to: Path | None = None) -> None:
        """Starts nothing yet. With ``save_to`` there is no window: all goes into that ``.rrd`` file."""
        self._save_to = save_to
        self._rerun: Any = None
        self._stream: Any = None
        self._waiting: queue.Queue[tuple[float, Snapshot | Mapping[str, Any]] | None] = queue.Queue(2)
        self._thread = threading.Thread(target=self._run, name="rerun view", daemon=True)
        self._said: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Opens the viewer. Raises ``InputError`` where Rerun is not installed or its window cannot open."""
        try:
            import rerun
        except ImportError:
            raise InputError(
                "--view needs Rerun, which is not installed: pip install 'kinova-recap[viz]', or leave it out"
            ) from None
        self._rerun = rerun
        self._stream = rerun.RecordingStream("recap")
        try:
            if self._save_to is not None:
                self._stream.save(self._save_to)
            else:
                self._stream.spawn(memory_limit=_MEMORY_LIMIT, hide_welcome_screen=True)
        except Exception as error:
            raise InputError(
                f"--view: Rerun cannot be opened ({one_line(error, None)}): leave it out"
            ) from None
        for field in (*STATE_FIELDS, ACTION_FIELD):
            series = rerun.SeriesLines(names=list(field.component_names))
            self._stream.log(_path(field), series, static=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the thread; the viewer's window stays, to look at what was."""
        try:
            self._waiting.put(None, timeout=_STOP_TIMEOUT_S)
        except queue.Full:  # the thread hangs; it ends with the process
            return
        self._thread.join(_STOP_TIMEOUT_S)

    def update(self, snapshot: Snapshot) -> None:
        """Takes the newest state; never waits."""
        self._put(snapshot)

    def images(self, observation: Mapping[str, Any]) -> None:
        """Takes the newest observation, as it is or with the action's names as well; never waits."""
        self._put(observation)

    def _put(self, item: Snapshot | Mapping[str, Any]) -> None:
        with contextlib.suppress(queue.Full):  # the viewer is slow: the next one is newer anyway
            self._waiting.put_nowait((time.time(), item))

    def _run(self) -> None:
        try:
            while (waiting := self._waiting.get()) is not None:
                at_s, item = waiting
                self._stream.set_time("time", timestamp=at_s)
                if isinstance(item, Snapshot):
                    self._log_snapshot(item)
                else:
                    self._log_observation(item)
            self._stream.flush(timeout_sec=_STOP_TIMEOUT_S)
        except Exception:
            _LOG.exception("the Rerun view failed; recording goes on without it")
            while self._waiting.get() is not None:  # so that leaving does not wait
                pass

    def _log_snapshot(self, snapshot: Snapshot) -> None:
        driver = np.nan if snapshot.driver is None else float(snapshot.driver)
        self._stream.log("driver", self._rerun.Scalars([driver]))
        self._stream.log("rate_hz", self._rerun.Scalars([snapshot.rate_hz]))
        who = "nobody" if snapshot.driver is None else Source(snapshot.driver).name.lower()
        said = (
            f"{snapshot.phase.value}: episode {snapshot.episode}, driven by {who}",
            *([snapshot.stopped] if snapshot.stopped is not None else []),
            *snapshot.limits,
            *(f"camera {name}: {why}" for name, why in sorted(snapshot.lost_cameras.items())),
        )
        for line in said:
            if line not in self._said:
                self._stream.log("events", self._rerun.TextLog(line))
        self._said = said

    def _log_observation(self, observation: Mapping[str, Any]) -> None:
        for field in (*STATE_FIELDS, ACTION_FIELD):
            if all(name in observation for name in field.component_names):
                values = [float(observation[name]) for name in field.component_names]
                self._stream.log(_path(field), self._rerun.Scalars(values))
        for name, image in observation.items():
            if isinstance(image, np.ndarray) and image.ndim == 3:
                jpeg = _small_jpeg(image)
                encoded = self._rerun.EncodedImage(contents=jpeg, media_type="image/jpeg")
                self._stream.log(f"cameras/{name}", encoded)


def _path(field: Field) -> str:
    return field.name if field is ACTION_FIELD else f"state/{field.name}"


def _small_jpeg(image: np.ndarray) -> bytes:
    """JPEG bytes of an RGB image (H, W, 3) uint8, at most 320 pixels wide."""
    height, width = image.shape[:2]
    if width > _IMAGE_WIDTH:
        size = (_IMAGE_WIDTH, max(1, round(height * _IMAGE_WIDTH / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    options = (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1])
