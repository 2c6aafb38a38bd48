"""The SQLite file of schedules: its tables, how it is opened, and what is said when it cannot be.

The database itself refuses to change or remove a row, but for ``open_runs``, an index of the runs without a
final event that keeps ticks quick after years. A new version of the tables adds to them: raise
``_VERSION``, and lead older files to it in :func:`_create`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import Failure, InputError

FILE = "schedules.sqlite"
_VERSION = 1
_BUSY_S = 30.0
_SYNCHRONOUS = "FULL"  # what is noted survives a power cut
_SCHEMA = """
CREATE TABLE definitions (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, at TEXT NOT NULL, document TEXT
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, schedule TEXT NOT NULL, logical_time TEXT NOT NULL, missed INTEGER NOT NULL,
    by_hand INTEGER NOT NULL, UNIQUE (schedule, logical_time)
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs (id), kind TEXT NOT NULL, at TEXT NOT NULL,
    final INTEGER NOT NULL, notify INTEGER NOT NULL, document TEXT NOT NULL
);
CREATE UNIQUE INDEX one_end ON events (run) WHERE final;
CREATE UNIQUE INDEX one_notice ON events (run) WHERE kind = 'notified';
CREATE INDEX of_run ON events (run, id);
CREATE INDEX by_end ON events (at) WHERE final;
CREATE INDEX to_tell ON events (run) WHERE notify;
CREATE TABLE open_runs (run INTEGER PRIMARY KEY REFERENCES runs (id));
CREATE TRIGGER run_opens AFTER INSERT ON runs BEGIN INSERT INTO open_runs VALUES (NEW.id); END;
CREATE TRIGGER run_ends AFTER INSERT ON events WHEN NEW.final
BEGIN DELETE FROM open_runs WHERE run = NEW.run; END;
""" + "".join(
    f"""
CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END;
"""
    for table in ("definitions", "runs", "events")
    for verb in ("UPDATE", "DELETE")
)


class ScheduleDatabase:
    """The file ``schedules.sqlite`` of a workspace. Reading one that is not there creates nothing.

    Raises ``InputError`` for a file that is no such database, is damaged or newer; ``Failure`` for one that
    stays locked, and for a full disk.
    """

    def __init__(self, root: Path) -> None:
        """Of the workspace at ``root``; touches nothing."""
        self.path = root / FILE

    def read(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows; none where the file is not there."""
        if not self.path.exists():
            return []
        with self.explained(), closing(self._connected()) as database:
            if _version(database, self.path) == 0:
                return []
            return database.execute(query, tuple(values)).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing, also when the process is killed."""
        with self.explained():
            # Only for its owner: it may hold the secret in a web address.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(self._connected()) as database:
                database.execute(f"PRAGMA synchronous = {_SYNCHRONOUS}")
                database.execute("BEGIN IMMEDIATE")
                try:
                    if _version(database, self.path) == 0:
                        _create(database)
                    yield database
                except BaseException:
                    if database.in_transaction:  # a full disk has ended it already
                        database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Errors of SQLite, the disk, or of rows that make no sense become one line."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise Failure(
                    f"cannot write {self.path}: the disk is full; nothing was changed: see 'recap gc'"
                ) from error
            if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise Failure(f"{self.path} was locked for {_BUSY_S:g} s: try again") from error
            raise InputError(
                f"cannot read or write {self.path} ({error}); nothing was changed: free the disk or give "
                "permission, or, if it is damaged, move it elsewhere and add the schedules again"
            ) from error
        except OSError as error:
            raise InputError(f"cannot open {self.path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path} holds what this software does not know ({error}): update it"
            ) from error


def _create(database: sqlite3.Connection) -> None:
    # Statement by statement, since executescript would end the transaction first.
    statement = ""
    for line in _SCHEMA.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            database.execute(statement)
            statement = ""
    database.execute(f"PRAGMA user_version = {_VERSION}")


def _version(database: sqlite3.Connection, path: Path) -> int:
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= _VERSION:
        raise InputError(f"{path} has version {version}, this software knows up to {_VERSION}: update it")
    if version == 0 and database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None:
        raise InputError(f"{path} is an SQLite file but holds no schedules: move it elsewhere")
    return version


def stored(moment: datetime) -> str:
    """A moment as it is stored: always of the same length, so that texts sort as moments do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def moment_of(text: str) -> datetime:
    """The inverse of :func:`stored`."""
    return datetime.fromisoformat(text)
