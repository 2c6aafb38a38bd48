"""The label store's queue: which episodes there are, and who has the right to label one now."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from pipeline.errors import InputError
from pipeline.label_queue import claim_next, claim_one
from pipeline.label_reading import LabelReading
from pipeline.label_state import draw
from pipeline.label_types import DRIVERS, Lease, QueueFilter, StaleLease, require_name

LEASE_S = 300.0


class LabelLeases(LabelReading):
    """Episodes, priorities and leases; see :mod:`pipeline.labels`."""

    def sync(self, episodes: Iterable[tuple[str, str]], drivers: Mapping[str, str] | None = None) -> int:
        """Adds the episodes (id, task) not yet known, in the given order; returns how many were new.

        ``drivers`` says by id who drove: ``teleop``, ``policy`` or ``corrected``; others are not known.
        """
        known = {row["id"]: row["driver"] for row in self._read("SELECT id, driver FROM episodes")}
        wished = {i: driver for i, driver in (drivers or {}).items() if driver in DRIVERS}
        given = dict(episodes)
        new = [(i, task, draw(i)) for i, task in given.items() if i not in known]
        told = [(driver, i) for i, driver in wished.items() if known.get(i) != driver]
        if not new and not told:
            return 0  # without taking the lock that annotators wait for
        with self._transaction() as db:
            before = db.total_changes
            db.executemany("INSERT OR IGNORE INTO episodes (id, task, draw) VALUES (?, ?, ?)", new)
            added = db.total_changes - before
            db.executemany("UPDATE episodes SET driver = ? WHERE id = ?", told)
            return added

    def set_priorities(self, priorities: Mapping[str, float]) -> None:
        """Where a label would help most, for the order ``helpful``: higher first; 0 for those not named.

        From 1 on, a labelled episode is handed out once more, to somebody else who does not see its label.
        """
        known = {row["id"]: row["priority"] for row in self._read("SELECT id, priority FROM episodes")}
        changed = [(float(priorities.get(i, 0.0)), i) for i in known]
        changed = [(priority, i) for priority, i in changed if priority != known[i]]
        if any(math.isnan(priority) for priority, _ in changed):
            raise InputError("a priority is a number, not NaN")
        if changed:
            with self._transaction() as db:
                db.executemany("UPDATE episodes SET priority = ? WHERE id = ?", changed)

    def claim(
        self,
        annotator: str,
        lease_s: float = LEASE_S,
        *,
        wanted: QueueFilter = QueueFilter(),  # noqa: B008  # frozen
        skipped: Collection[str] = (),
    ) -> Lease | None:
        """Leases the next episode for this annotator, if there is one; see :mod:`pipeline.label_queue`."""
        require_name(annotator)
        with self._transaction() as db:
            return claim_next(db, annotator, wanted, skipped, self.rules, **self._times(lease_s))

    def claim_episode(self, episode_id: str, annotator: str, lease_s: float = LEASE_S) -> Lease | None:
        """Leases this episode, labelled or not; ``None`` while somebody else holds it.

        Whoever holds it already gets a new lease, and their old one becomes stale. ``None`` also where only
        a reviewer may speak: it is adjudicated, or disputed among others. Raises ``InputError`` if the store
        does not know the episode.
        """
        require_name(annotator)
        with self._transaction() as db:
            self._require_known(db, episode_id)
            return claim_one(db, episode_id, annotator, self.rules, **self._times(lease_s))

    def heartbeat(self, lease: Lease, lease_s: float = LEASE_S) -> Lease:
        """The same lease, lasting ``lease_s`` from now. Raises :class:`StaleLease`."""
        with self._transaction() as db:
            self._held(db, lease)
            expires = self._times(lease_s)["expires"]
            db.execute("UPDATE episodes SET lease_expires = ? WHERE id = ?", (expires, lease.episode_id))
        return replace(lease, expires=expires)

    def release(self, lease: Lease) -> None:
        """Gives the episode back unlabelled; does nothing if the lease is stale already."""
        with self._transaction() as db:
            db.execute(
                "UPDATE episodes SET leased_by = NULL, lease_expires = NULL"
                " WHERE id = ? AND fence = ? AND leased_by = ?",
                (lease.episode_id, lease.fence, lease.annotator),
            )

    @staticmethod
    def _held(db: sqlite3.Connection, lease: Lease) -> bool:
        """Whether the lease is one for an independent opinion. Raises :class:`StaleLease`."""
        row = db.execute(
            "SELECT lease_blind FROM episodes WHERE id = ? AND fence = ? AND leased_by = ?",
            (lease.episode_id, lease.fence, lease.annotator),
        ).fetchone()
        if row is None:
            raise StaleLease(
                f"{lease.annotator}'s lease on {lease.episode_id} is over: it was used, released, or ran out "
                "and the episode went to someone else; take the next one"
            )
        return bool(row["lease_blind"])
