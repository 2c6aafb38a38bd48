"""The label store's tables, and how a file of an older version becomes one of this version.

Label events are append-only: the database itself refuses to change or remove one.

The rule for a new version n + 1: the statements of a released version stay as they are, in ``_STEPS``; those
that lead from n to n + 1 are added as one more step, and may add columns and tables but never change an
event. A new file is made by all the steps, an older one by those it lacks, in one transaction: after a kill
it is wholly old or wholly new. Who raises the version adds a file written by the release before to
``tests/pipeline/golden/``. Software of an older version refuses a newer file when it opens it; where it has
it open already, its labels are refused (the trigger ``label_events_by_old_software``).

Version 2 adds roles, quality and marks to events, and to episodes what the queue and the checks of trust
need. Everything new in ``episodes`` follows from its events and its id (:mod:`pipeline.label_state`) or is a
hint (``driver``, ``priority``).
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from pipeline.errors import InputError
from pipeline.label_faults import explained, is_full
from pipeline.label_rows import event_of, update_state
from pipeline.label_state import draw, resolve

VERSION = 2

_VERSION_1 = (
    """
    CREATE TABLE episodes (
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
    CREATE TABLE label_events (
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
    CREATE VIEW standing_labels AS SELECT * FROM label_events AS e
    WHERE undoes IS NULL AND NOT EXISTS (SELECT 1 FROM label_events AS u WHERE u.undoes = e.event_id)
    """,
    "CREATE INDEX unlabelled ON episodes (position) WHERE outcome IS NULL",
    "CREATE INDEX events_of_episode ON label_events (episode_id, event_id)",
    "CREATE INDEX events_of_annotator ON label_events (annotator, event_id)",
    """
    CREATE TRIGGER label_events_no_update BEFORE UPDATE ON label_events
    BEGIN SELECT RAISE(ABORT, 'label events are append-only'); END
    """,
    """
    CREATE TRIGGER label_events_no_delete BEFORE DELETE ON label_events
    BEGIN SELECT RAISE(ABORT, 'label events are append-only'); END
    """,
    # INSERT OR REPLACE removes the old row without asking the trigger above.
    """
    CREATE TRIGGER label_events_no_replace BEFORE INSERT ON label_events
    WHEN EXISTS (SELECT 1 FROM label_events WHERE event_id = NEW.event_id
                 OR (NEW.undoes IS NOT NULL AND undoes = NEW.undoes))
    BEGIN SELECT RAISE(ABORT, 'label events are append-only'); END
    """,
    """
    CREATE TRIGGER label_events_outcome AFTER INSERT ON label_events
    BEGIN UPDATE episodes SET outcome = NEW.outcome WHERE id = NEW.episode_id; END
    """,
)

_VERSION_2 = (
    """
    ALTER TABLE label_events ADD COLUMN role TEXT NOT NULL DEFAULT 'label'
        CHECK (role IN ('label', 'second', 'answer', 'adjudication', 'gold'))
    """,
    "ALTER TABLE label_events ADD COLUMN quality TEXT CHECK (quality IN ('clean', 'clumsy', 'unsafe'))",
    "ALTER TABLE label_events ADD COLUMN marks TEXT",  # JSON; NULL in events of version 1
    "ALTER TABLE episodes ADD COLUMN driver TEXT",
    "ALTER TABLE episodes ADD COLUMN priority REAL NOT NULL DEFAULT 0",
    "ALTER TABLE episodes ADD COLUMN draw REAL NOT NULL DEFAULT 1",
    "ALTER TABLE episodes ADD COLUMN state TEXT NOT NULL DEFAULT 'unlabelled'",
    "ALTER TABLE episodes ADD COLUMN holds INTEGER REFERENCES label_events (event_id)",
    "ALTER TABLE episodes ADD COLUMN sole_annotator TEXT",
    "ALTER TABLE episodes ADD COLUMN lease_blind INTEGER NOT NULL DEFAULT 0",
    # The software writes the state with the event, in one transaction: it takes more than the newest event.
    "DROP TRIGGER label_events_outcome",
    "DROP INDEX unlabelled",
    "DROP VIEW standing_labels",
    """
    CREATE VIEW standing_labels AS SELECT * FROM label_events AS e
    WHERE undoes IS NULL AND NOT EXISTS (SELECT 1 FROM label_events AS u WHERE u.undoes = e.event_id)
    """,
    """
    CREATE VIEW held_labels AS
    SELECT e.* FROM episodes JOIN label_events AS e ON e.event_id = episodes.holds
    """,
    # A label without its episode would be lost as well.
    """
    CREATE TRIGGER episodes_no_delete BEFORE DELETE ON episodes
    WHEN EXISTS (SELECT 1 FROM label_events WHERE episode_id = OLD.id)
    BEGIN SELECT RAISE(ABORT, 'label events are append-only, and so are their episodes'); END
    """,
    """
    CREATE TRIGGER episodes_no_renaming BEFORE UPDATE OF id ON episodes
    BEGIN SELECT RAISE(ABORT, 'label events are append-only, and so are their episodes'); END
    """,
    "CREATE INDEX queue ON episodes (state, position)",
    "CREATE INDEX events_by_time ON label_events (created_at)",
    """
    CREATE TRIGGER label_events_by_old_software BEFORE INSERT ON label_events WHEN NEW.marks IS NULL
    BEGIN SELECT RAISE(ABORT, 'this label store was upgraded meanwhile: start this program again'); END
    """,
)

_STEPS = {1: _VERSION_1, 2: _VERSION_2}


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """Opens the store in autocommit mode, creating it if need be; several processes may do so at once.

    The connection may be used from any thread, one at a time. In a folder that cannot be written, such as an
    archive's or one on a full disk, a whole file of this version can still be read. Raises ``InputError`` for
    a file that is no label store, cannot be written, or was written by newer software; ``Failure`` for one
    that stays locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _prepared(str(path), path, busy_timeout_s)
        except sqlite3.OperationalError:
            if not _is_archive(path):
                raise
            return _prepared(f"{path.absolute().as_uri()}?immutable=1", path, busy_timeout_s)
    except sqlite3.Error as error:
        raise explained(path, error, busy_timeout_s) from error
    except OSError as error:
        raise InputError(f"cannot open the label store {path}: {error}") from error


def _prepared(address: str, path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    archive = address != str(path)
    connection = sqlite3.connect(
        address, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False, uri=archive
    )
    try:
        connection.row_factory = sqlite3.Row
        if not archive:
            _use_wal(connection, busy_timeout_s)
            # A label that was confirmed survives a power cut. Measured: see docs/labels.md.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        _upgrade(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_archive(path: Path) -> bool:
    """Whether it can only be read: in a folder, or on a full disk, to which nobody is writing either.

    Even to read a file in WAL mode SQLite wants to write beside it, unless it is told that nobody does.
    """
    waiting = path.with_name(path.name + "-wal")
    return (
        path.is_file()
        and (not os.access(path.parent, os.W_OK, effective_ids=True) or is_full(path))
        and not (waiting.exists() and waiting.stat().st_size)
    )


def _use_wal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    # Switching the journal mode does not wait for other processes as statements do, so we wait here.
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while we waited.
        before = _version(connection, path)
        for version in range(before + 1, VERSION + 1):
            for statement in _STEPS[version]:
                connection.execute(statement)
        if before == 1:
            _fill_version_2(connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= VERSION:
        raise InputError(f"{path} has version {version}, this software knows up to {VERSION}: update it")
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None:
        raise InputError(f"{path} is an SQLite file but no label store: move it elsewhere")
    return version


def _fill_version_2(connection: sqlite3.Connection) -> None:
    for row in connection.execute("SELECT id FROM episodes").fetchall():
        connection.execute("UPDATE episodes SET draw = ? WHERE id = ?", (draw(row["id"]), row["id"]))
    events: dict[str, list[sqlite3.Row]] = {}
    for row in connection.execute("SELECT * FROM label_events ORDER BY event_id"):
        events.setdefault(row["episode_id"], []).append(row)
    for episode_id, rows in events.items():
        update_state(connection, episode_id, resolve([event_of(row) for row in rows]))
