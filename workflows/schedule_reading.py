"""What the schedules of a workspace are, their runs, and what became of each: only reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from workflows.schedule import Event, Kind, Run, Schedule
from workflows.schedule_database import ScheduleDatabase, moment_of, stored


@dataclass(frozen=True)
class Definition:
    """What a schedule is from ``at`` (UTC) on."""

    name: str
    at: datetime
    schedule: Schedule


class ScheduleReader:
    """The schedules of one workspace; errors are those of :class:`ScheduleDatabase`."""

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

    def knows(self, name: str) -> bool:
        """Whether there is such a schedule, or was."""
        return bool(self._database.read("SELECT 1 FROM definitions WHERE name = ? LIMIT 1", (name,)))

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
