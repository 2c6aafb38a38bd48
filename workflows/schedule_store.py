"""The schedules of a workspace, their runs, and what became of each; nothing is ever changed.

Three tables that only grow (see :mod:`workflows.schedule_database`). A *definition* says what a schedule is
from a moment on, or that it is gone; so it is known of every moment in the past which expression and time
zone held. A *run* is there once for each schedule and logical time. *Events* tell what became of it; one is
final.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pipeline.errors import InputError
from workflows.process_identity import ProcessIdentity
from workflows.schedule import FINAL, Kind, Run, Schedule
from workflows.schedule_database import stored
from workflows.schedule_reading import Definition, ScheduleReader

__all__ = ["Definition", "NewRun", "ScheduleReader", "ScheduleStore"]


@dataclass(frozen=True)
class NewRun:
    """A run to note; ``final`` and its reason where it is not to be run at all.

    ``by`` is the run that has refused it; ``summary`` is noted with the end, and told with ``tell``.
    """

    logical_time: datetime
    missed: int = 0
    by_hand: bool = False
    final: Kind | None = None
    reason: str = ""
    by: int | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    tell: bool = False


class ScheduleStore(ScheduleReader):
    """The store of one workspace: what there is, as its reader knows it, and what is noted."""

    def define(self, schedule: Schedule, at: datetime, *, new: bool) -> None:
        """Adds a schedule, or with ``new=False`` says what it is from ``at`` on.

        Raises ``InputError`` where it is there already, or is not.
        """
        with self._database.writing() as database:
            self._require(database, schedule.name, there=not new)
            _define(database, schedule.name, at, json.dumps(schedule.to_json(), sort_keys=True))

    def remove(self, name: str, at: datetime) -> None:
        """Ends a schedule; its runs stay in the history. Raises ``InputError`` where there is none."""
        with self._database.writing() as database:
            self._require(database, name, there=True)
            _define(database, name, at, None)

    def _require(self, database: sqlite3.Connection, name: str, *, there: bool) -> None:
        row = database.execute(
            "SELECT document FROM definitions WHERE name = ? ORDER BY id DESC LIMIT 1", (name,)
        ).fetchone()
        exists = row is not None and row[0] is not None
        if exists and not there:
            raise InputError(
                f"there is a schedule {name!r} already: give another name, or change it with "
                f"'recap schedule change {name}'"
            )
        if there and not exists:
            raise InputError(f"there is no schedule {name!r}: see 'recap schedule list'")

    def insert(self, name: str, runs: Iterable[NewRun], at: datetime) -> list[int]:
        """Notes runs, all or none; those whose logical time is noted already are left out. Returns ids."""
        added = []
        with self._database.writing() as database:
            for run in runs:
                done = database.execute(
                    "INSERT OR IGNORE INTO runs (schedule, logical_time, missed, by_hand) "
                    "VALUES (?, ?, ?, ?)",
                    (name, stored(run.logical_time), run.missed, run.by_hand),
                )
                if done.rowcount != 1 or done.lastrowid is None:
                    continue
                added.append(done.lastrowid)
                if run.final is not None:
                    document = {**run.summary, "reason": run.reason, "outcome": str(run.final)}
                    if run.by is not None:
                        document["by"] = run.by
                    _append(database, done.lastrowid, run.final, at, document, notify=run.tell)
        return added

    def claim(self, run: Run, document: dict[str, Any], at: datetime) -> bool:
        """Begins the next attempt of a run; ``False`` where another process was faster."""
        return self.note(run.id, Kind.STARTED, at, document, attempt=run.attempts)

    def register(
        self,
        run_id: int,
        attempt: int,
        at: datetime,
        iterations: Mapping[str, str],
        process: ProcessIdentity,
    ) -> bool:
        """Says which process is the attempt; ``False`` where it has been given to another meanwhile."""
        document = {"attempt": attempt, "process": asdict(process), "iterations": dict(iterations)}
        return self.note(run_id, Kind.RUNNING, at, document, attempt=attempt)

    def note(
        self,
        run_id: int,
        kind: Kind,
        at: datetime,
        document: dict[str, Any],
        *,
        attempt: int | None = None,
        notify: bool = False,
    ) -> bool:
        """Appends an event.

        ``False``, and nothing is changed, where the run has ended, a newer attempt than ``attempt`` has
        begun, or somebody was notified already.
        """
        with self._database.writing() as database:
            if kind is not Kind.NOTIFIED and _final(database, run_id):
                return False
            if attempt is not None and _attempts(database, run_id) != attempt:
                return False
            return _append(database, run_id, kind, at, document, notify=notify)


def _define(database: sqlite3.Connection, name: str, at: datetime, text: str | None) -> None:
    database.execute(
        "INSERT INTO definitions (name, at, document) VALUES (?, ?, ?)", (name, stored(at), text)
    )


def _append(
    database: sqlite3.Connection,
    run: int,
    kind: Kind,
    at: datetime,
    document: dict[str, Any],
    *,
    notify: bool,
) -> bool:
    done = database.execute(
        "INSERT OR IGNORE INTO events (run, kind, at, final, notify, document) VALUES (?, ?, ?, ?, ?, ?)",
        (run, str(kind), stored(at), kind in FINAL, notify, json.dumps(document, sort_keys=True)),
    )
    return done.rowcount == 1


def _final(database: sqlite3.Connection, run: int) -> bool:
    return database.execute("SELECT 1 FROM events WHERE run = ? AND final", (run,)).fetchone() is not None


def _attempts(database: sqlite3.Connection, run: int) -> int:
    query = "SELECT COUNT(*) FROM events WHERE run = ? AND kind = 'started'"
    count: int = database.execute(query, (run,)).fetchone()[0]
    return count
