"""The label store: who said what of which episode, in append-only events, with leases for annotators.

Several people, processes and threads may use one store at once. A *lease* keeps two annotators off
the same episode; each one granted raises the episode's *fence*, and a label given under a lease with an
older fence is refused, so somebody who slept through a lease cannot overwrite a colleague's label.

SQLite in WAL mode: the file must lie on a local disk, not on a network file system.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import InputError
from pipeline.label_schema import connect
from pipeline.label_snapshot import Snapshot, SnapshotRow, freeze, read_snapshot
from pipeline.label_types import (
    OUTCOMES,
    Label,
    LabelEvent,
    Lease,
    Progress,
    StaleLease,
    require_name,
    require_outcome,
)

__all__ = [
    "OUTCOMES",
    "Label",
    "LabelEvent",
    "LabelStore",
    "Lease",
    "Progress",
    "Snapshot",
    "SnapshotRow",
    "StaleLease",
    "freeze",
    "read_snapshot",
]

LEASE_S = 300.0
BUSY_TIMEOUT_S = 30.0


class LabelStore:
    """See the module. Building one touches nothing; the file is made at first use.

    ``clock`` gives the seconds since 1970 and must be the same for all who use the store.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Remembers where the store is."""
        self.path = path
        self._clock = clock
        # One connection behind a lock serves every thread: labels come seconds apart, and a connection
        # a thread would pile up in a web server that starts a thread for each page.
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def sync(self, episodes: Iterable[tuple[str, str]]) -> int:
        """Adds the episodes (id, task) not yet known, in the given order; returns how many were new."""
        with self._transaction() as db:
            before = db.total_changes
            db.executemany("INSERT OR IGNORE INTO episodes (id, task) VALUES (?, ?)", list(episodes))
            return db.total_changes - before

    def claim(self, annotator: str, task: str | None = None, lease_s: float = LEASE_S) -> Lease | None:
        """Leases the oldest episode (of ``task``) that has no label and no living lease, if there is one."""
        require_name(annotator)
        with self._transaction() as db:
            row = db.execute(
                """
                UPDATE episodes SET fence = fence + 1, leased_by = :annotator, lease_expires = :expires
                WHERE position = (
                    SELECT position FROM episodes
                    WHERE outcome IS NULL AND (:task IS NULL OR task = :task)
                    AND (leased_by IS NULL OR lease_expires <= :now) ORDER BY position LIMIT 1)
                RETURNING id, fence, lease_expires
                """,
                {"annotator": annotator, "task": task, **self._times(lease_s)},
            ).fetchone()
            return None if row is None else Lease(row["id"], annotator, row["fence"], row["lease_expires"])

    def claim_episode(self, episode_id: str, annotator: str, lease_s: float = LEASE_S) -> Lease | None:
        """Leases this episode, labelled or not; ``None`` while somebody else holds it.

        Whoever holds it already gets a new lease, and their old one becomes stale. Raises
        ``InputError`` if the store does not know the episode.
        """
        require_name(annotator)
        with self._transaction() as db:
            self._require_known(db, episode_id)
            row = db.execute(
                """
                UPDATE episodes SET fence = fence + 1, leased_by = :annotator, lease_expires = :expires
                WHERE id = :id
                AND (leased_by IS NULL OR leased_by = :annotator OR lease_expires <= :now)
                RETURNING fence, lease_expires
                """,
                {"id": episode_id, "annotator": annotator, **self._times(lease_s)},
            ).fetchone()
            return None if row is None else Lease(episode_id, annotator, row["fence"], row["lease_expires"])

    def heartbeat(self, lease: Lease, lease_s: float = LEASE_S) -> Lease:
        """The same lease, lasting ``lease_s`` from now. Raises :class:`StaleLease`."""
        with self._transaction() as db:
            self._require_held(db, lease)
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

    def record(self, lease: Lease, outcome: str, note: str = "") -> LabelEvent:
        """Labels the leased episode ``success``, ``failure`` or ``exclude``, and ends the lease.

        A lease that has run out still serves as long as nobody else got the episode. Raises
        :class:`StaleLease`, and ``InputError`` for another outcome.
        """
        require_outcome(outcome)
        with self._transaction() as db:
            self._require_held(db, lease)
            return self._append(db, lease.episode_id, outcome, lease.annotator, note)

    def set(self, episode_id: str, outcome: str, annotator: str, note: str = "") -> LabelEvent:
        """Labels an episode without a lease, as from a shell; a lease on it becomes stale."""
        require_outcome(outcome)
        require_name(annotator)
        with self._transaction() as db:
            self._require_known(db, episode_id)
            return self._append(db, episode_id, outcome, annotator, note)

    def undo(self, annotator: str) -> LabelEvent | None:
        """Takes back this annotator's newest label that still holds good; ``None`` if there is none.

        The episode's label before it (anybody's) holds again. Called again, goes one further back.
        Raises ``InputError`` if somebody else has labelled that episode since.
        """
        with self._transaction() as db:
            mine = db.execute(
                "SELECT event_id, episode_id FROM standing_labels WHERE annotator = ?"
                " ORDER BY event_id DESC LIMIT 1",
                (annotator,),
            ).fetchone()
            if mine is None:
                return None
            stack = db.execute(
                "SELECT event_id, annotator, outcome FROM standing_labels WHERE episode_id = ?"
                " ORDER BY event_id DESC LIMIT 2",
                (mine["episode_id"],),
            ).fetchall()
            if stack[0]["event_id"] != mine["event_id"]:
                raise InputError(
                    f"nothing undone: {stack[0]['annotator']} has labelled {mine['episode_id']} since you did"
                )
            before = stack[1]["outcome"] if len(stack) > 1 else None
            return self._append(db, mine["episode_id"], before, annotator, "", undoes=mine["event_id"])

    def current(self) -> dict[str, Label]:
        """The label that holds for each labelled episode; the others are absent."""
        rows = self._read(
            "SELECT * FROM standing_labels WHERE event_id IN"
            " (SELECT MAX(event_id) FROM standing_labels GROUP BY episode_id) ORDER BY episode_id"
        )
        names = ("episode_id", "outcome", "annotator", "note", "created_at", "event_id", "supersedes")
        return {row["episode_id"]: Label(*(row[name] for name in names)) for row in rows}

    def history(self, episode_id: str) -> list[LabelEvent]:
        """Everything that was ever said of an episode, oldest first."""
        rows = self._read(
            "SELECT * FROM label_events WHERE episode_id = :id ORDER BY event_id", {"id": episode_id}
        )
        return [LabelEvent(**dict(row)) for row in rows]

    def progress(self, task: str | None = None) -> Progress:
        """How far the labelling is, over all episodes or those of one task."""
        (row,) = self._read(
            """
            SELECT COUNT(*), COALESCE(SUM(outcome IS 'success'), 0), COALESCE(SUM(outcome IS 'failure'), 0),
                COALESCE(SUM(outcome IS 'exclude'), 0), COALESCE(SUM(outcome IS NULL), 0),
                COALESCE(SUM(leased_by IS NOT NULL AND lease_expires > :now), 0)
            FROM episodes WHERE :task IS NULL OR task = :task
            """,
            {"now": self._clock(), "task": task},
        )
        return Progress(*row)

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        """Returns the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self.path, BUSY_TIMEOUT_S)
        return self._connection

    def _read(self, statement: str, parameters: dict[str, Any] | None = None) -> list[sqlite3.Row]:
        with self._lock:
            return self._opened().execute(statement, parameters or {}).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time over all processes; everything in it happens, or nothing."""
        with self._lock:
            db = self._opened()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _times(self, lease_s: float) -> dict[str, float]:
        now = self._clock()
        return {"now": now, "expires": now + lease_s}

    def _append(
        self,
        db: sqlite3.Connection,
        episode_id: str,
        outcome: str | None,
        annotator: str,
        note: str,
        undoes: int | None = None,
    ) -> LabelEvent:
        """Appends an event and ends any lease: whoever held one must look at the new label first."""
        created_at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        row = db.execute(
            """
            INSERT INTO label_events (episode_id, outcome, annotator, note, created_at, supersedes, undoes)
            VALUES (:id, :outcome, :annotator, :note, :created_at,
                (SELECT MAX(event_id) FROM label_events WHERE episode_id = :id), :undoes)
            RETURNING *
            """,
            {
                "id": episode_id,
                "outcome": outcome,
                "annotator": annotator,
                "note": note,
                "created_at": created_at,
                "undoes": undoes,
            },
        ).fetchone()
        db.execute(
            "UPDATE episodes SET fence = fence + 1, leased_by = NULL, lease_expires = NULL WHERE id = ?",
            (episode_id,),
        )
        return LabelEvent(**dict(row))

    @staticmethod
    def _require_known(db: sqlite3.Connection, episode_id: str) -> None:
        if db.execute("SELECT 1 FROM episodes WHERE id = ?", (episode_id,)).fetchone() is None:
            raise InputError(
                f"the label store does not know an episode {episode_id!r}: see 'recap episodes list'"
            )

    @staticmethod
    def _require_held(db: sqlite3.Connection, lease: Lease) -> None:
        row = db.execute(
            "SELECT 1 FROM episodes WHERE id = ? AND fence = ? AND leased_by = ?",
            (lease.episode_id, lease.fence, lease.annotator),
        ).fetchone()
        if row is None:
            raise StaleLease(
                f"{lease.annotator}'s lease on {lease.episode_id} is over: it was used, released, or ran out "
                "and the episode went to someone else; take the next one"
            )
