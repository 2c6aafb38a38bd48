"""What one annotator's page does with the label store; the page itself only draws.

Every episode that is shown is leased, so that two people never label the same one by accident. All that
lasts lives in the store; what is lost with a browser's connection is only which episode was on the
screen, and :meth:`LabelingQueue.take` gets that one back by its id.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.labels import Label, LabelEvent, LabelStore, Lease, Progress
from pipeline.workspace import Workspace

LONGEST_NAME = 60


@dataclass(frozen=True)
class Ticket:
    """An episode on somebody's screen, and the lease that makes it theirs."""

    entry: EpisodeEntry
    lease: Lease


def annotator_name(typed: str) -> str:
    """A name as it is stored: trimmed, single spaces, printable; raises ``InputError`` for anything else."""
    name = " ".join(typed.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(f"a name has 1 to {LONGEST_NAME} printable characters")
    return name


class LabelingQueue:
    """One annotator at work on one workspace. ``task`` narrows the queue to one task."""

    def __init__(
        self, workspace: Workspace, store: LabelStore, annotator: str, task: str | None = None
    ) -> None:
        """Touches nothing yet. ``store`` is shared by all annotators that this process serves."""
        self.workspace = workspace
        self.store = store
        self.annotator = annotator
        self.task = task

    def take(self, skipped: Collection[str] = (), preferred: str | None = None) -> Ticket | None:
        """Leases an episode to show: ``preferred`` if it is to be had, or else the oldest unlabelled one.

        Leaves out ``skipped`` episodes, those that others hold, and those whose file cannot be read.
        ``None`` when there is nothing left.
        """
        if preferred is not None and (ticket := self._take_one(preferred)) is not None:
            return ticket
        # Leases on what is passed over are held until the end, or the store would offer them again.
        passed: list[Lease] = []
        try:
            while (lease := self.store.claim(self.annotator, self.task)) is not None:
                if lease.episode_id not in skipped:
                    try:
                        return Ticket(self.workspace.find(lease.episode_id), lease)
                    except InputError:
                        pass
                passed.append(lease)
        finally:
            for lease in passed:
                self.store.release(lease)
        return None

    def _take_one(self, episode_id: str) -> Ticket | None:
        try:
            entry = self.workspace.find(episode_id)
            lease = self.store.claim_episode(episode_id, self.annotator)
        except InputError:
            return None
        return None if lease is None else Ticket(entry, lease)

    def is_labelled(self, episode_id: str) -> bool:
        """Whether a label holds for the episode, whoever gave it."""
        history = self.store.history(episode_id)
        return bool(history) and history[-1].outcome is not None

    def keep(self, ticket: Ticket) -> Ticket:
        """Prolongs the lease, as a page that is open does now and then. Raises ``StaleLease``."""
        return replace(ticket, lease=self.store.heartbeat(ticket.lease))

    def answer(self, ticket: Ticket, outcome: str, note: str = "") -> LabelEvent:
        """Records a label. Raises ``StaleLease`` when the episode has gone to someone else meanwhile."""
        return self.store.record(ticket.lease, outcome, note.strip())

    def skip(self, ticket: Ticket) -> None:
        """Gives the episode back unlabelled; the page remembers not to show it again for now."""
        self.store.release(ticket.lease)

    def undo(self) -> LabelEvent | None:
        """Takes back the annotator's newest label; ``None`` if there is none. See ``LabelStore.undo``."""
        return self.store.undo(self.annotator)

    def progress(self) -> Progress:
        """Counts over the queue's task, or over all."""
        return self.store.progress(self.task)

    def own_labels(self, newest: int) -> list[Label]:
        """The newest labels of this annotator that hold, newest first. Other people's stay hidden."""
        own = [label for label in self.store.current().values() if label.annotator == self.annotator]
        return sorted(own, key=lambda label: label.event_id, reverse=True)[:newest]


def refresh(workspace: Workspace, store: LabelStore) -> dict[str, str]:
    """Tells the store of every finished episode; returns episode id -> task, oldest first."""
    tasks = {entry.id: entry.info.task for entry in workspace.list_episodes()}
    store.sync(tasks.items())
    return tasks
