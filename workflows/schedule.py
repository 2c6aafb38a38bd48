"""What a schedule is, and what became of each of its runs.

A *run* belongs to a schedule and a *logical time*, the moment at which it was due, and there is one for both
together, whatever happens. What becomes of it is a list of events that only grows; the last one is *final*.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from pipeline.errors import InputError
from workflows.notifications import Target, shown_address, shown_command
from workflows.process_identity import ProcessIdentity
from workflows.schedule_conditions import Condition, parse_condition
from workflows.schedule_times import Recurrence

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Missed(StrEnum):
    """What to do about times that passed while nothing ticked."""

    ONCE = "once"
    ALL = "all"
    SKIP = "skip"


class Kind(StrEnum):
    """What can happen to a run; all from ``ENDED`` on are final."""

    WAITING = "waiting"  # another command works in the workspace
    STARTED = "started"  # claimed by a tick, once for each attempt
    RUNNING = "running"  # the attempt's process has begun
    INTERRUPTED = "interrupted"  # the attempt's process is gone without a word
    NOTIFIED = "notified"  # somebody was told of its end, or could not be
    ENDED = "ended"  # the command has ended, well or not; or could not be run
    REFUSED = "refused"  # another run, or another command, was at work
    NOT_MET = "condition not met"
    SKIPPED = "skipped"  # it was missed, and the schedule does not run what was missed
    MERGED = "merged"  # a later run does its work
    DROPPED = "dropped"  # its schedule was removed


FINAL = frozenset({Kind.ENDED, Kind.REFUSED, Kind.NOT_MET, Kind.SKIPPED, Kind.MERGED, Kind.DROPPED})


@dataclass(frozen=True)
class Schedule:
    """When to run ``recap improve`` with ``options``, on what condition, and whom to tell.

    Raises ``InputError`` when it is built of anything that does not make sense, the options apart.
    """

    name: str
    cron: str
    time_zone: str = "UTC"
    when: str = ""  # see workflows.schedule_conditions; empty: always
    missed: str = Missed.ONCE
    grace_minutes: float = 30.0  # how late "skip" may start, and how long a run waits for another command
    notify_command: str = ""
    notify_url: str = ""
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks everything but the options, which the command checks."""
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"a schedule cannot be named {self.name!r}: use a-z, 0-9, '-' and '_', at most 64 of them"
            )
        if self.missed not in list(Missed):
            raise InputError(f"--missed must be one of {', '.join(Missed)}, not {self.missed!r}")
        if not 0 <= self.grace_minutes < float("inf"):
            raise InputError(f"--grace must be 0 or more minutes, not {self.grace_minutes!r}")
        object.__setattr__(self, "options", tuple(self.options))
        self.recurrence  # noqa: B018  # building it is the check
        self.condition  # noqa: B018  # as above
        self.target  # noqa: B018  # as above

    @property
    def recurrence(self) -> Recurrence:
        """When it is due."""
        return Recurrence(self.cron, self.time_zone)

    @property
    def condition(self) -> Condition:
        """On what it depends."""
        return parse_condition(self.when)

    @property
    def target(self) -> Target:
        """Whom to tell."""
        return Target(self.notify_command, self.notify_url)

    @property
    def command(self) -> str:
        """What it runs, as one would type it."""
        return shlex.join(["recap", "improve", *self.options])

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain JSON."""
        return {**asdict(self), "missed": str(self.missed), "options": list(self.options)}

    @staticmethod
    def shown(document: Mapping[str, Any]) -> dict[str, Any]:
        """What :meth:`to_json` gave, as it may be printed: without what may be secret."""
        return {
            **document,
            "notify_command": shown_command(document.get("notify_command", "")),
            "notify_url": shown_address(document.get("notify_url", "")),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schedule:
        """The inverse of :meth:`to_json`. Raises ``InputError`` for fields that are not known here."""
        unknown = sorted(set(document) - {f.name for f in fields(cls)})
        if unknown:
            raise InputError(f"a schedule has the unknown field {unknown[0]!r}: update this software")
        return cls(**document)


@dataclass(frozen=True)
class Event:
    """Something that happened to a run, when (UTC), and what is to be known of it (plain JSON)."""

    kind: Kind
    at: datetime
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run with its events, oldest first; ``missed`` counts the earlier times that it makes up for."""

    id: int
    schedule: str
    logical_time: datetime
    missed: int = 0
    by_hand: bool = False
    events: Sequence[Event] = field(default_factory=tuple)

    def last(self, kind: Kind) -> Event | None:
        """The newest event of a kind."""
        return next((event for event in reversed(self.events) if event.kind is kind), None)

    @property
    def final(self) -> Event | None:
        """How it ended, if it did."""
        return next((event for event in self.events if event.kind in FINAL), None)

    @property
    def attempts(self) -> int:
        """How often it was begun."""
        return sum(event.kind is Kind.STARTED for event in self.events)

    @property
    def started(self) -> datetime | None:
        """When it was first begun."""
        return next((event.at for event in self.events if event.kind is Kind.STARTED), None)

    @property
    def as_started(self) -> Mapping[str, Any]:
        """What was noted when it was begun first: the schedule as it was, and the log's path."""
        return next(event.document for event in self.events if event.kind is Kind.STARTED)

    @property
    def outcome(self) -> str:
        """One word or two for lists: ``promoted``, ``kept``, ``failed``, ``refused``, ``due`` and others."""
        final = self.final
        if final is not None:
            return str(final.document.get("outcome", final.kind))
        return "begun" if self.attempts else str(Kind.WAITING) if self.last(Kind.WAITING) else "due"

    def supervisor(self) -> ProcessIdentity:
        """The tick that began the newest attempt."""
        started = self.last(Kind.STARTED)
        assert started is not None  # only asked of runs that were begun
        return ProcessIdentity.from_json(started.document["process"])

    def worker(self) -> ProcessIdentity | None:
        """The process of the newest attempt, once it has begun."""
        running = self.last(Kind.RUNNING)
        if running is None or running.document["attempt"] != self.attempts:
            return None
        return ProcessIdentity.from_json(running.document["process"])

    @property
    def given_up(self) -> bool:
        """Whether the tick that began the newest attempt noted that its process is gone."""
        noted = self.last(Kind.INTERRUPTED)
        return noted is not None and noted.document["attempt"] == self.attempts
