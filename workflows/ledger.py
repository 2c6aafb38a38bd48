"""What the driver did, in SQLite: iterations, the steps they used, and which checkpoint is champion.

Written by the driver alone, never by a step. Everything is keyed by what it says, so a driver that
runs the same iteration again adds nothing. The champion's history only grows; its last entry counts.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import Failure
from pipeline.workspace import Workspace
from workflows.step_recipe import Keyed
from workflows.step_store import StepResult

_SCHEMA = """
CREATE TABLE IF NOT EXISTS iterations (
    n INTEGER PRIMARY KEY, started TEXT NOT NULL, finished TEXT, summary TEXT
);
CREATE TABLE IF NOT EXISTS steps (
    iteration INTEGER NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, seconds REAL NOT NULL,
    seen TEXT NOT NULL, PRIMARY KEY (iteration, name, key)
);
CREATE TABLE IF NOT EXISTS champions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, iteration INTEGER NOT NULL, step TEXT NOT NULL, key TEXT NOT NULL,
    folder TEXT NOT NULL, reason TEXT NOT NULL, promoted TEXT NOT NULL, UNIQUE (iteration, step, key)
);
CREATE TRIGGER IF NOT EXISTS champions_are_not_changed BEFORE UPDATE ON champions
BEGIN SELECT RAISE(ABORT, 'the history of champions is append-only'); END;
CREATE TRIGGER IF NOT EXISTS champions_are_not_removed BEFORE DELETE ON champions
BEGIN SELECT RAISE(ABORT, 'the history of champions is append-only'); END;
"""


@dataclass(frozen=True)
class Iteration:
    """One turn of the loop; ``finished`` and ``summary`` are empty while it runs. Times are UTC, ISO 8601."""

    n: int
    started: str
    finished: str | None
    summary: dict[str, Any]


@dataclass(frozen=True)
class Champion:
    """A promoted checkpoint: which step made it, where it is, in which iteration, why and when."""

    step: str
    key: str
    path: Path
    iteration: int
    reason: str
    promoted: str


class Ledger:
    """The ledger of one workspace. Reading one that was never written finds nothing and creates nothing."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def begin_iteration(self, n: int) -> None:
        """Notes that iteration ``n`` has begun, unless that is noted."""
        with self._writing() as database:
            database.execute("INSERT OR IGNORE INTO iterations (n, started) VALUES (?, ?)", (n, _now()))

    def finish_iteration(self, n: int, summary: dict[str, Any]) -> None:
        """Notes the end of iteration ``n`` and its summary (plain JSON), unless just that is noted."""
        text = json.dumps(summary, sort_keys=True, allow_nan=False)
        with self._writing() as database:
            database.execute(
                "INSERT INTO iterations (n, started, finished, summary) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (n) DO UPDATE SET finished = excluded.finished, summary = excluded.summary "
                "WHERE summary IS NOT excluded.summary",
                (n, _now(), _now(), text),
            )

    def record_steps(self, iteration: int, results: Iterable[StepResult]) -> None:
        """Notes which published steps an iteration used."""
        rows = [(iteration, r.name, r.key, r.seconds, _now()) for r in results]
        with self._writing() as database:
            database.executemany("INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?, ?)", rows)

    def promote(self, step: Keyed, folder: str, iteration: int, reason: str) -> bool:
        """Makes the checkpoint in ``folder`` of a published step the champion.

        Returns ``False``, and changes nothing, where this iteration promoted this step before. Raises
        ``Failure`` where there is no such checkpoint.
        """
        path = self._workspace.steps / step.name / step.key / folder
        if not path.is_dir():
            raise Failure(f"cannot promote {step.name}: there is no checkpoint in {path}")
        row = (iteration, step.name, step.key, folder, reason, _now())
        with self._writing() as database:
            added = database.execute(
                "INSERT OR IGNORE INTO champions (iteration, step, key, folder, reason, promoted) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            return added.rowcount == 1

    def champion(self) -> Champion | None:
        """The checkpoint that was promoted last, or ``None`` before the first promotion."""
        history = self.champions()
        return history[-1] if history else None

    def champions(self) -> list[Champion]:
        """Every promotion, oldest first."""
        rows = self._read("SELECT step, key, folder, iteration, reason, promoted FROM champions ORDER BY id")
        return [
            Champion(step, key, self._workspace.steps / step / key / folder, iteration, reason, promoted)
            for step, key, folder, iteration, reason, promoted in rows
        ]

    def iterations(self) -> list[Iteration]:
        """Every iteration, in order."""
        rows = self._read("SELECT n, started, finished, summary FROM iterations ORDER BY n")
        return [Iteration(n, began, ended, json.loads(text or "{}")) for n, began, ended, text in rows]

    def steps(self, iteration: int) -> list[tuple[str, str, float]]:
        """Name, key and seconds of each step that an iteration used."""
        query = "SELECT name, key, seconds FROM steps WHERE iteration = ? ORDER BY name, key"
        return [(name, key, seconds) for name, key, seconds in self._read(query, (iteration,))]

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        path = self._workspace.ledger_path
        if not path.is_file() or path.stat().st_size == 0:
            return []
        with closing(sqlite3.connect(path, timeout=30)) as database:
            return database.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing, also when the process is killed."""
        path = self._workspace.ledger_path
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
