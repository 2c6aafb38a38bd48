"""The ledger's tables in SQLite, and those of earlier versions taken over."""

from __future__ import annotations

import sqlite3

_SCHEMA = """
CREATE TABLE IF NOT EXISTS iterations (
    n INTEGER PRIMARY KEY, candidate TEXT NOT NULL UNIQUE, recorded TEXT NOT NULL, summary TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS steps (
    iteration INTEGER NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, seconds REAL NOT NULL,
    seen TEXT NOT NULL, PRIMARY KEY (iteration, name, key)
);
CREATE TABLE IF NOT EXISTS champions (
    id INTEGER PRIMARY KEY, iteration INTEGER NOT NULL, step TEXT NOT NULL, key TEXT NOT NULL,
    reason TEXT NOT NULL, promoted TEXT NOT NULL, kind TEXT NOT NULL DEFAULT 'promotion', since INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS promoted_once ON champions (iteration, step, key) WHERE kind = 'promotion';
CREATE TRIGGER IF NOT EXISTS champions_are_not_changed BEFORE UPDATE ON champions
BEGIN SELECT RAISE(ABORT, 'the history of champions is append-only'); END;
CREATE TRIGGER IF NOT EXISTS champions_are_not_removed BEFORE DELETE ON champions
BEGIN SELECT RAISE(ABORT, 'the history of champions is append-only'); END;
"""
# Ledgers from before rollbacks cannot hold one champion twice: their table is copied, in one transaction.
_BEFORE_ROLLBACKS = """
ALTER TABLE champions RENAME TO champions_before;
DROP TRIGGER champions_are_not_changed;
DROP TRIGGER champions_are_not_removed;
"""
_AFTER_COPYING = """
INSERT INTO champions (id, iteration, step, key, reason, promoted) SELECT * FROM champions_before ORDER BY id;
DROP TABLE champions_before;
"""


def prepare(database: sqlite3.Connection) -> None:
    """Makes the tables that are missing, and gives those of an earlier version their new columns."""
    columns = [row[1] for row in database.execute("PRAGMA table_info(champions)")]
    if columns and "kind" not in columns:
        script = f"BEGIN IMMEDIATE; {_BEFORE_ROLLBACKS} {_SCHEMA} {_AFTER_COPYING} COMMIT;"
    else:
        script = f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;"
    database.executescript(script)
