"""What one annotator's page does with the label store; the page itself only draws.

Every episode that is shown is leased, so that two people never label the same one by accident. So is the one
after it, whose film is made meanwhile. All that lasts lives in the store; what is lost with a browser's
connection is only which leases these were, and :meth:`LabelingQueue.resume` gets them back by their names.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from labeling_app.catalogue import Catalogue
from labeling_app.messages import Said
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.labels import (
    OWN_ANSWERS,
    LabelEvent,
    LabelStore,
    Lease,
    Left,
    Progress,
    QueueFilter,
    StaleLease,
)

LONGEST_NAME = 60
# Near the end of the queue nobody holds an episode that they do not look at: somebody else may be free.
LEFT_FOR_OTHERS = 4


@dataclass(frozen=True)
class Ticket:
    """An episode on somebody's screen, and the lease that makes it theirs."""

    entry: EpisodeEntry
    lease: Lease

    @property
    def token(self) -> str:
        """Names this look at the episode, so that an answer counts only for what was seen."""
        return f"{self.entry.id}:{self.lease.fence}"


def annotator_name(typed: str) -> str:
    """A name as it is stored: trimmed, single spaces, printable; raises ``InputError`` for anything else."""
    name = " ".join(typed.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(f"a name has 1 to {LONGEST_NAME} printable characters")
    return name


class LabelingQueue:
    """One annotator at work on one workspace; ``wanted`` narrows and orders the queue."""

    def __init__(
        self, catalogue: Catalogue, store: LabelStore, annotator: str, wanted: QueueFilter | None = None
    ) -> None:
        """Touches nothing yet. ``store`` and ``catalogue`` are shared by all whom this process serves."""
        self.catalogue = catalogue
        self.store = store
        self.annotator = annotator
        self.wanted = wanted or QueueFilter()

    def take(self, skipped: Collection[str] = (), preferred: str | None = None) -> Ticket | None:
        """Leases an episode to show: ``preferred`` if it is to be had, or else the next of the queue.

        Leaves out ``skipped`` episodes, those that others hold, and those whose file cannot be read.
        ``None`` when there is nothing left.
        """
        if preferred is not None and (ticket := self.take_one(preferred)) is not None:
            return ticket
        passed = set(skipped)
        while True:
            lease = self.store.claim(self.annotator, wanted=self.wanted, skipped=passed)
            if lease is None:
                return None
            try:
                return Ticket(self.catalogue.find(lease.episode_id).entry, lease)
            except InputError:
                self.store.release(lease)
                passed.add(lease.episode_id)

    def take_one(self, episode_id: str) -> Ticket | None:
        """Leases this very episode; ``None`` if there is none of that id or somebody else holds it."""
        try:
            entry = self.catalogue.find(episode_id).entry
            lease = self.store.claim_episode(episode_id, self.annotator)
        except InputError:
            return None
        return None if lease is None else Ticket(entry, lease)

    def take_ahead(self, skipped: Collection[str] = ()) -> Ticket | None:
        """Leases the episode after the one shown, unless few are left: then others may need it."""
        progress = self.progress()
        free = progress.unlabelled + progress.awaiting_second - progress.leased
        return self.take(skipped) if free > LEFT_FOR_OTHERS else None

    def resume(self, token: str | None) -> Ticket | None:
        """The ticket of that name, if its lease has not been used, released, or lost to somebody else."""
        episode_id, _, fence = (token or "").rpartition(":")
        if not fence.isascii() or not fence.isdigit() or len(fence) > 12:
            return None
        try:
            entry = self.catalogue.find(episode_id).entry
            return self.keep(Ticket(entry, Lease(episode_id, self.annotator, int(fence), 0.0)))
        except (InputError, StaleLease):
            return None

    def keep(self, ticket: Ticket) -> Ticket:
        """Prolongs the lease, as a page that is open does now and then. Raises ``StaleLease``."""
        return replace(ticket, lease=self.store.heartbeat(ticket.lease))

    def kept(self, ticket: Ticket | None) -> Ticket | None:
        """As :meth:`keep`; ``None`` where there is no lease any more."""
        try:
            return None if ticket is None else self.keep(ticket)
        except StaleLease:
            return None

    def answer(self, ticket: Ticket, said: Said) -> LabelEvent:
        """Records a label. Raises ``StaleLease`` when the episode has gone to someone else meanwhile."""
        return self.store.record(ticket.lease, said.answer, said.note, quality=said.quality, marks=said.marks)

    def give_back(self, ticket: Ticket) -> None:
        """Gives the episode back unlabelled."""
        self.store.release(ticket.lease)

    def undo(self) -> LabelEvent | None:
        """Takes back the annotator's newest answer, and returns it; ``None`` if there is none.

        Never what they decided as a reviewer. See ``LabelStore.undo``.
        """
        event = self.store.undo(self.annotator, roles=OWN_ANSWERS)
        if event is None:
            return None
        return next(said for said in self.store.history(event.episode_id) if said.event_id == event.undoes)

    def left(self, skipped: Collection[str] = ()) -> Left:
        """What this annotator has answered, and what is still to be answered by them."""
        return self.store.left(self.annotator, self.wanted, skipped)

    def progress(self) -> Progress:
        """Counts over the queue's task, or over all."""
        return self.store.progress(self.wanted.task)

    def own_labels(self, newest: int) -> list[LabelEvent]:
        """What this annotator said last and did not take back, newest first. Other people's stay hidden."""
        return self.store.labels_of(self.annotator, newest, roles=OWN_ANSWERS)
