"""The schedules of a workspace, their runs, and what became of each; nothing is ever changed.

Three tables that only grow (see :mod:`workflows.schedule_database`). A *definition* says what a schedule is
from a moment on, or that it is gone; so it is known of every moment in the past which expression and time
zone held. A *run* is there once for each schedule and logical time. *Events* tell what became of it; one is
final.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from workflows.process_identity import ProcessIdentity
from workflows.schedule import FINAL, Event, Kind, Run, Schedule
from workflows.schedule_database import ScheduleDatabase, moment_of, stored


@dataclass(frozen=True)
class Definition:
    """What a schedule is from ``at`` (UTC) on."""

    name: str
    at: datetime
    schedule: Schedule


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


class ScheduleStore:
    """The store of one workspace; errors are those of :class:`ScheduleDatabase`."""

    def __init__(self, root: Path) -> None:
        """Of the workspace at ``root``; touches nothing."""
        self._database = ScheduleDatabase(root)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def definitions(self) -> dict[str, list[Definition]]:
        """Of each schedule that there is, its definitions since it was added last; in order of time."""
        found: dict[str, list[tuple[str, str]]] = {}
        rows = self._database.read("SELECT name, at, document FROM definitions ORDER BY id")
        for name, at, text in rows:
            if text is None:
                found.pop(name, None)
            else:
                found.setdefault(name, []).append((at, text))
        with self._database.explained():
            return {name: [self._definition(name, *row) for row in found[name]] for name in sorted(found)}

    def _definition(self, name: str, at: str, text: str) -> Definition:
        try:
            return Definition(name, moment_of(at), Schedule.from_json(json.loads(text)))
        except InputError as error:
            said = f"schedule {name!r} in {self.path}: {error}"
            raise InputError(f"{said}; or 'recap schedule remove {name}'") from error

    def schedules(self) -> dict[str, Schedule]:
        """What there is now, by name."""
        return {name: definitions[-1].schedule for name, definitions in self.definitions().items()}

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

    def newest_time(self, name: str, until: datetime) -> datetime | None:
        """The newest logical time up to ``until`` that is noted of a schedule, runs by hand apart."""
        rows = self._database.read(
            (
                "SELECT logical_time FROM runs WHERE schedule = ? AND logical_time <= ? AND NOT by_hand "
                "ORDER BY logical_time DESC LIMIT 1"
            ),
            (name, stored(until)),
        )
        return moment_of(rows[0][0]) if rows else None

    def times_after(self, name: str, moment: datetime) -> tuple[int, datetime | None]:
        """How many logical times after ``moment`` are noted of a schedule, and the newest of them."""
        rows = self._database.read(
            "SELECT COUNT(*), MAX(logical_time) FROM runs WHERE schedule = ? AND logical_time > ?",
            (name, stored(moment)),
        )
        return (rows[0][0], moment_of(rows[0][1])) if rows and rows[0][0] else (0, None)

    def has_refused(self, run: Run, name: str) -> bool:
        """Whether a time of the schedule ``name`` is noted as refused since ``run`` was at work."""
        started = run.started
        assert started is not None  # only what was begun refuses
        rows = self._database.read(
            "SELECT 1 FROM runs JOIN events ON events.run = runs.id WHERE schedule = ? AND logical_time > ? "
            "AND kind = 'refused' AND json_extract(document, '$.by') = ? LIMIT 1",
            (name, stored(started), run.id),
        )
        return bool(rows)

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

    def run(self, run_id: int) -> Run:
        """One run. Raises ``InputError`` where there is none."""
        found = self._runs("WHERE id = ?", (run_id,))
        if not found:
            raise InputError(f"there is no run {run_id} in {self.path}")
        return found[0]

    def open_runs(self) -> list[Run]:
        """Those without a final event, by logical time."""
        return self._runs("WHERE id IN (SELECT run FROM open_runs)")

    def made_up_for(self, run_id: int) -> int:
        """How many missed times were merged into a run after it was noted."""
        rows = self._database.read(
            "SELECT SUM(json_extract(document, '$.missed')) FROM events "
            "WHERE kind = 'merged' AND json_extract(document, '$.into') = ?",
            (run_id,),
        )
        return int(rows[0][0] or 0) if rows else 0

    def unnotified(self) -> list[Run]:
        """Those whose end somebody is to be told of, and was not."""
        return self._runs(
            "WHERE id IN (SELECT run FROM events WHERE notify AND final) AND NOT EXISTS "
            "(SELECT 1 FROM events e WHERE e.run = runs.id AND e.kind = 'notified')"
        )

    def begun_since(self, moment: datetime) -> list[Run]:
        """Those that were begun and had not ended by ``moment``."""
        return self._runs(
            "WHERE id IN (SELECT run FROM open_runs UNION SELECT run FROM events WHERE final AND at > ?) "
            "AND EXISTS (SELECT 1 FROM events e WHERE e.run = runs.id AND e.kind = 'started')",
            (stored(moment),),
        )

    def history(self, name: str | None = None, limit: int | None = None) -> list[Run]:
        """The runs noted last, of one schedule or of all, by logical time."""
        where, values = ("WHERE schedule = ?", (name,)) if name is not None else ("", ())
        newest = f"WHERE id IN (SELECT id FROM runs {where} ORDER BY id DESC LIMIT ?)"
        return self._runs(newest, (*values, -1 if limit is None else limit))

    def last_run(self, name: str) -> Run | None:
        """The run of a schedule that was noted last."""
        found = self.history(name, 1)
        return found[0] if found else None

    def _runs(self, where: str, values: Sequence[Any] = ()) -> list[Run]:
        chosen = f"SELECT id FROM runs {where}"
        rows = self._database.read(
            "SELECT runs.id, schedule, logical_time, missed, by_hand, kind, at, document FROM runs "
            f"LEFT JOIN events ON events.run = runs.id WHERE runs.id IN ({chosen}) "
            "ORDER BY logical_time, runs.id, events.id",
            values,
        )
        events: dict[int, list[Event]] = {}
        heads = {}
        with self._database.explained():
            for run_id, *head, kind, at, document in rows:
                heads[run_id] = head
                known = events.setdefault(run_id, [])
                if kind is not None:
                    known.append(Event(Kind(kind), moment_of(at), json.loads(document)))
            return [
                Run(run_id, name, moment_of(time), missed, bool(by_hand), tuple(events[run_id]))
                for run_id, (name, time, missed, by_hand) in heads.items()
            ]


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
