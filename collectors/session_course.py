"""A session whose episodes differ: who drives the next one, what its file keeps, what the person is told.

Without a course all episodes of a session are alike. With one, as for an evaluation, the person's words count
beyond the episode: success, failure and discard are also taken between episodes, about the one before, and
an episode that is discarded is kept, since it says why it does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from collectors.episode_log import EpisodeSummary
from collectors.operator_keys import OperatorKey
from collectors.policy_thread import Planner
from collectors.session_settings import SessionSettings

Submit = Callable[[Callable[[], Path | None]], None]
"""Has a call made in the background, after the files of the episodes so far are finished."""


@dataclass(frozen=True)
class Turn:
    """What the next episode is to be."""

    task: str
    """What to do, as it is recorded."""
    scene: int
    """The number that the scene is prepared by, and that the policy's seed follows from."""
    policy: int = 0
    """Which of the course's planners drives."""
    policy_name: str | None = None
    """Its name, as it is recorded."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """JSON that the episode keeps in its ``extra``."""

    def settings(self, session: SessionSettings) -> SessionSettings:
        """The session's settings, as they are for this episode."""
        extra = {**session.extra, **self.extra}
        return replace(session, task=self.task, policy_name=self.policy_name, extra=extra)


class Course(Protocol):
    """The episodes of a session, one after the other. All calls come from the session's thread."""

    @property
    def planners(self) -> Sequence[Planner]:
        """The policies that take turns."""
        ...

    def turn(self) -> Turn | None:
        """What comes next, as things stand; ``None``: the session is over. Asked often, changes nothing."""
        ...

    def words(self) -> str:
        """What the person is told to do now, between two episodes."""
        ...

    def refusal(self) -> str | None:
        """Why the next episode cannot be started yet, ``None`` where it can."""
        ...

    def began(self) -> None:
        """Takes note that the next episode was asked for: no word is about the one before any more."""
        ...

    def last(self) -> str | None:
        """The id of the episode before, as long as a word is about it; ``None``: there is none."""
        ...

    def ended(self, episode_id: str, summary: EpisodeSummary, submit: Submit) -> str:
        """Takes note of an episode that is kept; what it came to, in words."""
        ...

    def judge(self, key: OperatorKey, submit: Submit) -> str:
        """Takes SUCCESS, FAILURE or DISCARD about the episode before; what it changed, in words."""
        ...
