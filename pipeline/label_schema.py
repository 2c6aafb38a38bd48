"""The label store's tables. Label events are append-only: the database itself refuses to change one."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from pipeline.errors import InputError

VERSION = 1

# episodes.outcome repeats what the newest event says, kept by a trigger in the same transaction, so that
# finding the oldest unlabelled episode is one look into an index however many are labelled.
_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS episodes (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        task TEXT NOT NULL,
        outcome TEXT,
        fence INTEGER NOT NULL DEFAULT 0,
        leased_by TEXT,
        lease_expires REAL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS label_events (
        event_id INTEGER PRIMARY KEY AUTOINCREMENT,
        episode_id TEXT NOT NULL REFERENCES episodes (id),
        outcome TEXT CHECK (outcome IN ('success', 'failure', 'exclude')),
        annotator TEXT NOT NULL,
        note TEXT NOT NULL,
        created_at TEXT NOT NULL,
        supersedes INTEGER REFERENCES label_events (event_id),
        undoes INTEGER UNIQUE REFERENCES label_events (event_id),
        CHECK (outcome IS NOT NULL OR undoes IS NOT NULL)
    )
    """,
    # The labels that stand: given by a person, and undone by nobody. The newest of an episode holds.
    """
    CREATE VIEW IF NOT EXISTS standing_labels AS SELECT * FROM label_events AS e
    WHERE undoes IS NULL AND NOT EXISTS (SELECT 1 FROM label_events AS u WHERE u.undoes = e.event_id)
    """,
    "CREATE INDEX IF NOT EXISTS unlabelled ON episodes (position) WHERE outcome IS NULL",
    "CREATE INDEX IF NOT EXISTS events_of_episode ON label_events (episode_id, event_id)",
    "CREATE INDEX IF NOT EXISTS events_of_annotator ON label_events (annotator, event_id)",
    """
    CREATE TRIGGER IF NOT EXISTS label_events_no_update BEFORE UPDATE ON label_events
    BEGIN SELECT RAISE(ABORT, 'label events are append-only'); END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS label_events_no_delete BEFORE DELETE ON label_events
    BEGIN SELECT RAISE(ABORT, 'label events are append-only'); END
    """,
    # INSERT OR REPLACE removes the old row without asking the trigger above.
    """
    CREATE TRIGGER IF NOT EXISTS label_events_no_replace BEFORE INSERT ON label_events
    WHEN EXISTS (SELECT 1 FROM label_events WHERE event_id = NEW.event_id
                 OR (NEW.undoes IS NOT NULL AND undoes = NEW.undoes))
    BEGIN SELECT RAISE(ABORT, 'label events are append-only'); END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS label_events_outcome AFTER INSERT ON label_events
    BEGIN UPDATE episodes SET outcome = NEW.outcome WHERE id = NEW.episode_id; END
    """,
)


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Opens the store in autocommit mode, creating it if need be; several processes may do so at once.

    The connection may be used from any thread, one at a time. Raises ``InputError`` for a file that is
    no label store or was written by newer software.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        _use_wal(connection, busy_timeout_s)
        connection.execute("PRAGMA synchronous = FULL")  # a label that was confirmed survives a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        _create(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise InputError(f"cannot open the label store {path}: {error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    # Switching the journal mode does not wait for other processes as statements do, so we wait here.
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _create(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise InputError(f"{path} has version {version}, this software knows up to {VERSION}: update it")
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
