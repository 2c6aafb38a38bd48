"""What the label store takes and gives: leases, events, the labels that hold, counts."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import Failure, InputError

OUTCOMES = ("success", "failure", "exclude")


class StaleLease(Failure):
    """The lease no longer holds: it ran out and someone else got the episode, or it was used already."""


@dataclass(frozen=True)
class Lease:
    """The right to label one episode. ``expires`` is in seconds since 1970; ``fence`` tells leases apart."""

    episode_id: str
    annotator: str
    fence: int
    expires: float


@dataclass(frozen=True)
class LabelEvent:
    """One thing that was said of an episode; never changed.

    ``supersedes`` is the event that was the episode's newest before. An event with ``undoes`` takes
    that event back and repeats the outcome of the one before it (``None``: unlabelled again).
    ``created_at`` is ISO 8601 in UTC.
    """

    event_id: int
    episode_id: str
    outcome: str | None
    annotator: str
    note: str
    created_at: str
    supersedes: int | None
    undoes: int | None


@dataclass(frozen=True)
class Label:
    """The label that now holds for an episode, as the person gave it who gave it."""

    episode_id: str
    outcome: str
    annotator: str
    note: str
    created_at: str
    event_id: int
    supersedes: int | None


@dataclass(frozen=True)
class Progress:
    """Counts of episodes; ``total`` is the sum of the four after it. ``leased`` are being labelled now."""

    total: int
    success: int
    failure: int
    exclude: int
    unlabelled: int
    leased: int


def require_outcome(outcome: str) -> None:
    """Raises ``InputError`` for anything that is none of ``OUTCOMES``."""
    if outcome not in OUTCOMES:
        raise InputError(f"an outcome is one of {', '.join(OUTCOMES)}, not {outcome!r}")


def require_name(annotator: str) -> None:
    """Raises ``InputError`` for an annotator without a name."""
    if not annotator.strip():
        raise InputError("an annotator needs a name")
