"""The label store: who said what of which episode, in append-only events, with leases for annotators.

Several people, processes and threads may use one store at once. A *lease* keeps two annotators off
the same episode; each one granted raises the episode's *fence*, and a label given under a lease with an
older fence is refused, so somebody who slept through a lease cannot overwrite a colleague's label.

Part of the episodes are labelled by two people who do not see each other's answer; where they differ the
episode is *disputed*, and nothing holds until a reviewer adjudicates. See docs/labels.md.

SQLite in WAL mode: the file must lie on a local disk, not on a network file system.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from pipeline.errors import InputError
from pipeline.label_agreement import Agreement
from pipeline.label_file import BUSY_TIMEOUT_S
from pipeline.label_leases import LEASE_S, LabelLeases
from pipeline.label_reading import timestamp
from pipeline.label_rows import event_of, events_of, update_state
from pipeline.label_snapshot import Snapshot, SnapshotRow, freeze, read_snapshot
from pipeline.label_state import REPLACING, EpisodeState, resolve, standing
from pipeline.label_types import (
    OUTCOMES,
    OWN_ANSWERS,
    QUALITIES,
    ROLES,
    Dispute,
    Label,
    LabelEvent,
    Lease,
    Left,
    Mark,
    NewLabel,
    Opinion,
    Progress,
    QueueFilter,
    StaleLease,
    marks_text,
    require_name,
    require_outcome,
    require_quality,
    require_text,
)

__all__ = [
    "BUSY_TIMEOUT_S",
    "LEASE_S",
    "OUTCOMES",
    "OWN_ANSWERS",
    "QUALITIES",
    "Agreement",
    "Dispute",
    "Label",
    "LabelEvent",
    "LabelStore",
    "Lease",
    "Left",
    "Mark",
    "NewLabel",
    "Opinion",
    "Progress",
    "QueueFilter",
    "Snapshot",
    "SnapshotRow",
    "StaleLease",
    "freeze",
    "read_snapshot",
]


class LabelStore(LabelLeases):
    """See the module; built as :class:`pipeline.label_file.LabelFile` says."""

    def record(
        self,
        lease: Lease,
        outcome: str,
        note: str = "",
        *,
        quality: str | None = None,
        marks: Sequence[Mark] = (),
    ) -> LabelEvent:
        """Labels the leased episode ``success``, ``failure`` or ``exclude``, and ends the lease.

        A lease that has run out still serves as long as nobody else got the episode. Raises
        :class:`StaleLease`, and ``InputError`` for another outcome or quality.
        """
        new = _checked(lease.episode_id, outcome, lease.annotator, note, quality, marks)
        with self._transaction() as db:
            blind = self._held(db, lease)
            state = resolve(events_of(db, lease.episode_id))
            return self._append(db, new, _role(state, lease.annotator, blind))

    def set(
        self,
        episode_id: str,
        outcome: str,
        annotator: str,
        note: str = "",
        *,
        quality: str | None = None,
        marks: Sequence[Mark] = (),
    ) -> LabelEvent:
        """Labels an episode without a lease, as from a shell; a lease on it becomes stale.

        Replaces what was said before. Raises ``InputError`` where only a reviewer may speak: the episode is
        disputed, adjudicated or gold.
        """
        new = _checked(episode_id, outcome, annotator, note, quality, marks)
        return self.set_all([new])[0]

    def set_all(self, labels: Sequence[NewLabel]) -> list[LabelEvent]:
        """:meth:`set` for each; all of them, or with an error none."""
        checked = [_checked(n.episode_id, n.outcome, n.annotator, n.note, n.quality, n.marks) for n in labels]
        with self._transaction() as db:
            events = []
            for new in checked:
                self._require_known(db, new.episode_id)
                state = resolve(events_of(db, new.episode_id))
                if state.settled or state.name == "disputed":
                    raise InputError(
                        f"{new.episode_id} is {state.name}: only a reviewer changes that, "
                        "see 'recap label adjudicate'"
                    )
                events.append(self._append(db, new, "label"))
            return events

    def adjudicate(
        self,
        episode_id: str,
        outcome: str,
        reviewer: str,
        note: str = "",
        *,
        quality: str | None = None,
        marks: Sequence[Mark] = (),
    ) -> LabelEvent:
        """A reviewer's word on an episode that is disputed, or that a reviewer has spoken on: it holds.

        The opinions stay in the history and count for the agreement. Raises ``InputError`` for people who
        are no reviewers, and for other episodes.
        """
        new = _checked(episode_id, outcome, reviewer, note, quality, marks)
        self._require_reviewer(reviewer)
        with self._transaction() as db:
            self._require_known(db, episode_id)
            state = resolve(events_of(db, episode_id))
            if state.name not in {"disputed", "adjudicated", "gold"}:
                raise InputError(
                    f"{episode_id} is not disputed but {state.name}: label it with 'recap label'"
                )
            return self._append(db, new, "adjudication")

    def set_gold(self, episode_id: str, outcome: str, reviewer: str, note: str = "") -> LabelEvent:
        """Makes the episode gold: ``outcome`` holds, and annotators are asked now and then, unknowingly.

        Their answers are measured against it and change nothing else. :meth:`undo` takes it back. Raises
        ``InputError`` for people who are no reviewers.
        """
        new = _checked(episode_id, outcome, reviewer, note, None, ())
        self._require_reviewer(reviewer)
        with self._transaction() as db:
            self._require_known(db, episode_id)
            return self._append(db, new, "gold")

    def undo(self, annotator: str, *, roles: Collection[str] = ROLES) -> LabelEvent | None:
        """Takes back this annotator's newest word (of ``roles``) that stands; ``None`` if there is none.

        What was said before it (by anybody) holds again. Called again, goes one further back. Raises
        ``InputError`` if it has been replaced since; an independent opinion replaces nothing.
        """
        with self._transaction() as db:
            newest = db.execute(
                "SELECT event_id, episode_id FROM standing_labels WHERE annotator = ?"
                " AND role IN (SELECT value FROM json_each(?)) ORDER BY event_id DESC LIMIT 1",
                (annotator, json.dumps(list(roles))),
            ).fetchone()
            if newest is None:
                return None
            events = events_of(db, newest["episode_id"])
            later = [event for event in standing(events) if event.event_id > newest["event_id"]]
            for event in later:
                if event.role in REPLACING:
                    who = (
                        "you have decided"
                        if event.annotator == annotator
                        else f"{event.annotator} has labelled"
                    )
                    raise InputError(f"nothing undone: {who} {event.episode_id} since you labelled it")
            (mine,) = [event for event in events if event.event_id == newest["event_id"]]
            before = resolve([event for event in events if event != mine])
            new = NewLabel(mine.episode_id, "", annotator)
            return self._append(db, new, mine.role, outcome=before.outcome, undoes=mine.event_id)

    def _append(
        self,
        db: sqlite3.Connection,
        new: NewLabel,
        role: str,
        *,
        outcome: str | None = None,
        undoes: int | None = None,
    ) -> LabelEvent:
        """Appends an event and ends any lease: whoever held one must look at the new state first."""
        events = events_of(db, new.episode_id)
        replaced = [e for e in events if role in REPLACING or undoes or e.annotator == new.annotator]
        row = db.execute(
            """
            INSERT INTO label_events (episode_id, outcome, annotator, note, created_at, supersedes, undoes,
                role, quality, marks)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *
            """,
            (
                new.episode_id,
                outcome if undoes else new.outcome,
                new.annotator,
                new.note,
                timestamp(self._clock()),
                replaced[-1].event_id if replaced else None,
                undoes,
                role,
                new.quality,
                marks_text(new.marks),
            ),
        ).fetchone()
        event = event_of(row)
        update_state(db, new.episode_id, resolve([*events, event]))
        db.execute(
            "UPDATE episodes SET fence = fence + 1, leased_by = NULL, lease_expires = NULL, lease_blind = 0"
            " WHERE id = ?",
            (new.episode_id,),
        )
        return event

    def _require_reviewer(self, name: str) -> None:
        if not self.rules.is_reviewer(name):
            raise InputError(
                f"{name} is no reviewer: [labels] in recap.toml names {', '.join(self.rules.reviewers)}"
            )


def _role(state: EpisodeState, annotator: str, blind: bool) -> str:
    """What a label given under a lease is, by where the episode stands."""
    if state.name == "gold":
        return "answer"
    own = state.opinion_of(annotator)
    others = len(state.opinions) - (own is not None)
    # Their own opinion replaces only their own, as long as there are others' beside it.
    return "second" if others and (blind or own is not None) else "label"


def _checked(
    episode_id: str, outcome: str, annotator: str, note: str, quality: str | None, marks: Sequence[Mark]
) -> NewLabel:
    require_outcome(outcome)
    require_name(annotator)
    require_text("a note", note)
    require_quality(quality)
    return NewLabel(episode_id, outcome, annotator, note, quality, tuple(marks))
