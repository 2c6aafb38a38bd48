"""What a recording session tells about itself while it runs, for a terminal view, Rerun or a log.

The session's control loop must never wait for a screen. So it hands over its newest state to a
:class:`TelemetryFeed`, whose thread passes it on to a :class:`Telemetry` about ten times a second; what a
slow view does not come round to see is skipped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Protocol, Self

from pipeline.episode import Outcome, Source

_LOG = logging.getLogger(__name__)
UPDATES_PER_S = 10.0
_STOP_TIMEOUT_S = 2.0  # a view that hangs must not keep the session from ending


class Phase(StrEnum):
    """What the session does now; the value is the word for the screen."""

    WAITING = "waiting"  # for the operator's start; the arm follows the operator, nothing is recorded
    RUNNING = "running"
    PAUSED = "paused"  # within an episode: the arm holds, nothing is recorded
    STOPPED = "stopped"  # the arm takes no commands until the operator clears its fault
    ENDED = "ended"  # the session is over


@dataclass(frozen=True)
class Snapshot:
    """The state of a session at one moment.

    ``episode`` is the number of the current or next episode in this session, from 1; ``done`` counts the
    kept ones of ``wanted`` (``None``: until the operator stops). ``seconds``, ``frames`` and the counts
    are of the current episode: steps that ended late, frames that the disk was too slow for, steps for
    which the policy had no action. ``rate_hz`` is measured over about the last second (0 before the
    first step), ``wanted_rate_hz`` the one set. ``driver`` is who chose the latest action, ``None`` when
    nobody did; ``subtask`` is what the policy said that it does. ``limits`` and ``stopped`` are the arm's
    own words; ``lost_cameras`` maps a camera to why, ``lost_device`` says why the operator's device gives
    no input. ``can_take_over``: there is such a device. ``can_correct``: a key would say how the episode
    before went.
    """

    phase: Phase
    task: str
    episode: int = 1
    episode_id: str | None = None
    done: int = 0
    wanted: int | None = None
    seconds: float = 0.0
    frames: int = 0
    rate_hz: float = 0.0
    wanted_rate_hz: float = 0.0
    overruns: int = 0
    dropped: int = 0
    starved: int = 0
    driver: Source | None = None
    subtask: str | None = None
    limits: tuple[str, ...] = ()
    stopped: str | None = None
    lost_cameras: Mapping[str, str] = field(default_factory=dict)
    lost_device: str | None = None
    disk_free_bytes: int = 0
    last_mark: Outcome | None = None
    message: str = ""
    can_take_over: bool = True
    can_correct: bool = False


class Telemetry(Protocol):
    """Where snapshots go. Both methods are called from one thread, which is not the control loop's."""

    def update(self, snapshot: Snapshot) -> None:
        """The newest state, about ten times a second and once more at the end."""
        ...

    def images(self, observation: Mapping[str, Any]) -> None:
        """The newest observation, as often; for views that show the cameras. Must not change it."""
        ...


class TelemetryFeed:
    """Passes on the newest snapshot and observation from a thread of its own; a context manager.

    An exception from the telemetry is logged once and ends the feed, never the recording.
    """

    def __init__(self, telemetry: Telemetry, updates_per_s: float = UPDATES_PER_S) -> None:
        """Starts nothing yet; see ``__enter__``."""
        self._telemetry = telemetry
        self._interval_s = 1.0 / updates_per_s
        self._snapshot: Snapshot | None = None
        self._observation: Mapping[str, Any] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def put(self, snapshot: Snapshot, observation: Mapping[str, Any] | None = None) -> None:
        """Replaces what was not passed on yet; never waits."""
        self._snapshot = snapshot
        if observation is not None:
            self._observation = observation

    def __enter__(self) -> Self:
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Passes on the last snapshot and ends the thread."""
        self._stopping.set()
        self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._interval_s):
                self._pass_on()
            self._pass_on()
        except Exception:
            _LOG.exception("the live view failed; recording goes on without it")

    def _pass_on(self) -> None:
        snapshot, self._snapshot = self._snapshot, None
        observation, self._observation = self._observation, None
        if snapshot is not None:
            self._telemetry.update(snapshot)
        if observation is not None:
            self._telemetry.images(observation)


class NoTelemetry:
    """Shows nothing."""

    def update(self, snapshot: Snapshot) -> None:
        """Ignores it."""

    def images(self, observation: Mapping[str, Any]) -> None:
        """Ignores it."""
