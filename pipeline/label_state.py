"""What follows for an episode from everything that was said of it; pure functions, no database.

A *round* begins with the newest standing event of role ``label`` and holds the independent opinions since:
that event and those of role ``second``, the newest of each annotator. A standing ``adjudication`` or
``gold`` event after the round's start settles the episode, whatever the opinions are. Otherwise one opinion
holds; several hold when their outcomes are equal (the earliest stands for them); and when they differ, the
episode is disputed and nothing holds. Answers on gold episodes (role ``answer``) change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from pipeline.label_types import LabelEvent, Opinion

SETTLING = ("adjudication", "gold")
REPLACING = ("label", *SETTLING)


@dataclass(frozen=True)
class EpisodeState:
    """Where an episode stands.

    ``name`` is ``unlabelled``, ``single`` (one opinion), ``agreed``, ``disputed``, ``adjudicated`` or
    ``gold``; ``holder`` the event whose outcome holds, if any does; ``opinions`` those of the round.
    """

    name: str
    holder: LabelEvent | None
    opinions: tuple[LabelEvent, ...]

    @property
    def outcome(self) -> str | None:
        """The outcome that holds."""
        return None if self.holder is None else self.holder.outcome

    @property
    def settled(self) -> bool:
        """Whether a reviewer has spoken."""
        return self.name in {"adjudicated", "gold"}

    @property
    def sole_annotator(self) -> str | None:
        """Who gave the one opinion, where there is one and no reviewer has spoken."""
        return self.opinions[0].annotator if self.name == "single" else None

    def opinion_of(self, annotator: str) -> LabelEvent | None:
        """This annotator's opinion in the round."""
        return next((event for event in self.opinions if event.annotator == annotator), None)


def standing(events: Sequence[LabelEvent]) -> list[LabelEvent]:
    """The events that were not taken back, without those that take back; in the given order."""
    undone = {event.undoes for event in events}
    return [event for event in events if event.undoes is None and event.event_id not in undone]


def resolve(events: Sequence[LabelEvent]) -> EpisodeState:
    """The state after ``events``, all events of one episode, oldest first."""
    said = standing(events)
    start = max((event.event_id for event in said if event.role == "label"), default=0)
    newest = {
        event.annotator: event
        for event in said
        if event.role in {"label", "second"} and event.event_id >= start
    }
    opinions = tuple(sorted(newest.values(), key=lambda event: event.event_id))
    settling = [event for event in said if event.role in SETTLING and event.event_id > start]
    if settling:
        return EpisodeState("gold" if settling[-1].role == "gold" else "adjudicated", settling[-1], opinions)
    if not opinions:
        return EpisodeState("unlabelled", None, ())
    if len(opinions) == 1:
        return EpisodeState("single", opinions[0], opinions)
    if len({event.outcome for event in opinions}) == 1:
        return EpisodeState("agreed", opinions[0], opinions)
    return EpisodeState("disputed", None, opinions)


def as_opinion(event: LabelEvent) -> Opinion:
    """An event as what its annotator says."""
    assert event.outcome is not None  # only an undoing event has none
    return Opinion(
        event.episode_id,
        event.annotator,
        event.outcome,
        event.note,
        event.quality,
        event.marks,
        event.created_at,
        event.event_id,
    )


def draw(*words: str) -> float:
    """A number in [0, 1) that everybody computes alike from the same words, evenly spread over words."""
    digest = blake2b("\0".join(words).encode(errors="surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest) / 2**56


def answers(events: Iterable[LabelEvent]) -> dict[str, LabelEvent]:
    """Each annotator's newest standing answer on a gold episode."""
    return {event.annotator: event for event in standing(list(events)) if event.role == "answer"}
