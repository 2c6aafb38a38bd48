"""What a recording session is told before it begins, and what it tells when it is over."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from collectors.episode_log import EpisodeSummary
from pipeline.episode import EpisodeInfo
from pipeline.errors import InputError
from pipeline.site_config import MAX_RATE_HZ

GB = 1_000_000_000


@dataclass(frozen=True)
class SessionSettings:
    """How a session is run; contradictions raise ``InputError``."""

    task: str
    """What to do, as it is recorded in every episode."""
    operator: str
    """The person's name, as it is recorded."""
    rate_hz: float = 20.0
    """Control steps, and so frames, a second."""
    episodes: int | None = None
    """How many to keep; without it until the operator stops."""
    max_seconds: float = 300.0
    """An episode that nobody ends is ended after this time."""
    auto_start_s: float | None = None
    """Begins the next episode after this time by itself; without it the operator's start is waited for."""
    policy_name: str | None = None
    """The checkpoint's name, as it is recorded; for rollouts only."""
    seed: int = 0
    """Of the policy's random numbers; each episode adds its number."""
    blend_steps: int = 0
    """Over how many steps the policy's next chunk replaces the present one; see ``policy_thread``."""
    execute_steps: int | None = None
    """How many actions of a chunk are executed; by default as many as the policy says."""
    min_free_bytes: int = 2 * GB
    """No episode begins with less room on the disk than this."""
    reserve_bytes: int = GB // 4
    """A recording is ended, and kept, when less than this is left."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """JSON that every episode keeps in its ``extra``: facts of the site."""

    def __post_init__(self) -> None:
        """Refuses what could not be run."""
        if not (math.isfinite(self.rate_hz) and 0 < self.rate_hz <= MAX_RATE_HZ):
            raise InputError(
                f"the rate is {self.rate_hz:g} Hz; it must be above 0 and at most {MAX_RATE_HZ:g}"
            )
        if not self.task.strip():
            raise InputError("the task is empty: say what to do, e.g. --task 'pick up the red cube'")
        if self.episodes is not None and self.episodes < 1:
            raise InputError(f"episodes is {self.episodes}; it must be at least 1")
        if not self.max_seconds * self.rate_hz >= 1:
            raise InputError(f"an episode of {self.max_seconds:g} s at {self.rate_hz:g} Hz has no step")
        if self.auto_start_s is not None and self.auto_start_s < 0:
            raise InputError(f"auto-start after {self.auto_start_s:g} s: the time must not be negative")

    def wants_more(self, kept: int) -> bool:
        """Whether ``kept`` episodes are not all that are wanted."""
        return self.episodes is None or kept < self.episodes

    @property
    def max_steps(self) -> int:
        """The longest episode in control steps."""
        return max(1, round(self.max_seconds * self.rate_hz))


@dataclass(frozen=True)
class KeptEpisode:
    """One recorded episode of a session."""

    id: str
    summary: EpisodeSummary
    dropped_frames: int
    cameras_lost: tuple[str, ...]


@dataclass(frozen=True)
class SessionSummary:
    """What a session gave. ``problems`` are lines for the operator, in the order they came up.

    ``arm_stopped`` is why the arm took no commands any more when the operator ended the session.
    """

    episodes: tuple[KeptEpisode, ...]
    discarded: int
    problems: tuple[str, ...]
    arm_stopped: str | None = None


def new_episode_info(settings: SessionSettings, robot: Any, *, has_policy: bool) -> EpisodeInfo:
    """What a new episode of ``robot`` (LeRobot ``Robot``) keeps about itself; it begins now."""
    now = datetime.now(UTC)
    features = robot.observation_features
    return EpisodeInfo(
        id=new_episode_id(now),
        task=settings.task,
        operator=settings.operator,
        robot=robot.name,
        rate_hz=settings.rate_hz,
        cameras=tuple(name for name, kind in features.items() if isinstance(kind, tuple)),
        created=now.isoformat(timespec="milliseconds"),
        software_version=version("kinova-recap"),
        policy_checkpoint=settings.policy_name if has_policy else None,
        extra=dict(settings.extra),
    )


def new_episode_id(now: datetime) -> str:
    """``<date>-<time>-<six random digits>``: sorts by time, and is unlike any other machine's."""
    return f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
