"""What the label store takes and gives: leases, events, marks, the labels that hold, counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from pipeline.errors import Failure, InputError

OUTCOMES = ("success", "failure", "exclude")
QUALITIES = ("clean", "clumsy", "unsafe")
"""How well it was done, whatever the outcome; from best to worst."""

MARK_KINDS = ("success", "failure", "segment")
ROLES = ("label", "second", "answer", "adjudication", "gold")
OWN_ANSWERS = ROLES[:3]
"""What annotators say; the other roles are a reviewer's."""

ORDERS = ("oldest", "task", "helpful")
DRIVERS = ("teleop", "policy", "corrected")

LONGEST_TEXT = 10_000


class StaleLease(Failure):
    """The lease no longer holds: it ran out and someone else got the episode, or it was used already."""


@dataclass(frozen=True)
class Mark:
    """Something an annotator pointed at: frames count from 0.

    ``success`` and ``failure`` are moments (``end_frame == start_frame``); a ``segment`` is a sub-task in
    words, from ``start_frame`` up to but without ``end_frame``.
    """

    kind: str
    start_frame: int
    end_frame: int
    text: str = ""

    def __post_init__(self) -> None:
        """Raises ``InputError`` for anything else."""
        if self.kind not in MARK_KINDS:
            raise InputError(f"a mark is one of {', '.join(MARK_KINDS)}, not {self.kind!r}")
        for frame in (self.start_frame, self.end_frame):
            if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < 2**31:
                raise InputError(f"a mark's frames are whole numbers from 0 on, not {frame!r}")
        require_text("a mark's text", self.text)
        if self.kind != "segment" and self.start_frame != self.end_frame:
            raise InputError(f"a moment of {self.kind} is one frame, not {self.start_frame}–{self.end_frame}")
        if self.kind == "segment" and not (self.start_frame < self.end_frame and self.text.strip()):
            raise InputError(
                f"a segment ends after it starts and says what is done in it, unlike {self.start_frame}–"
                f"{self.end_frame} {self.text!r}"
            )


@dataclass(frozen=True)
class QueueFilter:
    """Which episodes an annotator wants, and in which order.

    ``order``: ``oldest`` first; by ``task``, then oldest; ``helpful``: the highest priority first (see
    :meth:`pipeline.labels.LabelStore.set_priorities`), then oldest. ``driver``: ``teleop``, ``policy``, or
    ``corrected``.
    """

    task: str | None = None
    order: str = "oldest"
    driver: str | None = None

    def __post_init__(self) -> None:
        """Raises ``InputError`` for an unknown order or driver."""
        if self.order not in ORDERS:
            raise InputError(f"an order is one of {', '.join(ORDERS)}, not {self.order!r}")
        if self.driver is not None and self.driver not in DRIVERS:
            raise InputError(f"a driver is one of {', '.join(DRIVERS)}, not {self.driver!r}")


@dataclass(frozen=True)
class Lease:
    """The right to label one episode. ``expires`` is in seconds since 1970; ``fence`` tells leases apart.

    It does not say whether somebody has labelled the episode already, or whether it is gold: the annotator
    is not to know.
    """

    episode_id: str
    annotator: str
    fence: int
    expires: float


@dataclass(frozen=True)
class LabelEvent:
    """One thing that was said of an episode; never changed.

    ``role`` says what it is: ``label`` (replaces all that was said before), ``second`` (an independent
    opinion beside it), ``answer`` (on a gold episode), ``adjudication`` or ``gold`` (a reviewer's word).
    ``supersedes`` is the event that it replaced or followed. An event with ``undoes`` takes that event back,
    has its role, and repeats the outcome that holds thereafter (``None``: unlabelled or disputed).
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
    role: str = "label"
    quality: str | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Left:
    """What one annotator has answered, and how many answers they will still be asked for, as things are."""

    answered: int
    to_go: int


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
    role: str = "label"
    quality: str | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Opinion:
    """What one annotator says of an episode without knowing what others said; their newest."""

    episode_id: str
    annotator: str
    outcome: str
    note: str
    quality: str | None
    marks: tuple[Mark, ...]
    created_at: str
    event_id: int


@dataclass(frozen=True)
class Dispute:
    """An episode on which independent annotators differ; nothing holds until a reviewer adjudicates."""

    episode_id: str
    task: str
    opinions: tuple[Opinion, ...]


@dataclass(frozen=True)
class NewLabel:
    """A label to be stored together with others, see :meth:`pipeline.labels.LabelStore.set_all`."""

    episode_id: str
    outcome: str
    annotator: str
    note: str = ""
    quality: str | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Counts of episodes; ``total`` is the sum of the four after it and ``disputed``.

    ``leased`` are being labelled now. ``awaiting_second`` have one label and are to get another, by somebody
    else. ``last_hour`` counts answers of any kind that were given in the last hour and not undone.
    """

    total: int
    success: int
    failure: int
    exclude: int
    unlabelled: int
    leased: int
    disputed: int = 0
    awaiting_second: int = 0
    last_hour: int = 0


def require_outcome(outcome: str) -> None:
    """Raises ``InputError`` for anything that is none of ``OUTCOMES``."""
    if outcome not in OUTCOMES:
        raise InputError(f"an outcome is one of {', '.join(OUTCOMES)}, not {outcome!r}")


def require_quality(quality: str | None) -> None:
    """Raises ``InputError`` for anything but ``None`` and ``QUALITIES``."""
    if quality is not None and quality not in QUALITIES:
        raise InputError(f"a quality is one of {', '.join(QUALITIES)}, not {quality!r}")


def require_name(annotator: str) -> None:
    """Raises ``InputError`` for an annotator without a name."""
    if not annotator.strip():
        raise InputError("an annotator needs a name")
    require_text("a name", annotator)


def require_text(what: str, text: str) -> None:
    """Raises ``InputError`` for text that no file can hold, or that is longer than any person's."""
    if "\0" in text or len(text) > LONGEST_TEXT or not _is_unicode(text):
        raise InputError(f"{what} has at most {LONGEST_TEXT} characters of valid text, without NUL")


def marks_text(marks: Iterable[Mark]) -> str:
    """Marks as they are stored: a JSON list of objects, in the order of their frames."""
    ordered = sorted(marks, key=lambda mark: (mark.start_frame, mark.end_frame, mark.kind, mark.text))
    return json.dumps([asdict(mark) for mark in ordered], ensure_ascii=False)


def read_marks(text: str | None) -> tuple[Mark, ...]:
    """The inverse of :func:`marks_text`; raises ``InputError`` for text that is not of that form."""
    if not text or text == "[]":
        return ()
    try:
        return tuple(Mark(**fields) for fields in json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(f"marks are a JSON list of kind, start_frame, end_frame, text: {error}") from error


def worst_quality(qualities: Sequence[str | None]) -> str | None:
    """The worst of several people's; ``None`` where none of them said anything."""
    said = [QUALITIES.index(quality) for quality in qualities if quality is not None]
    return QUALITIES[max(said)] if said else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
