"""What SQLite says when the ledger cannot be read or written, in words that say what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import Failure, InputError

WAIT_S = 30.0
"""How long a locked ledger is waited for."""

# By SQLite's primary result code, the low byte of the extended ones.
_FAILURES = {
    sqlite3.SQLITE_BUSY: f"was locked by another program for {WAIT_S:g} s, nothing was noted: end what holds "
    "it (a database browser, a backup), and try again",
    sqlite3.SQLITE_FULL: "has no room left on its disk, nothing was noted: free some, such as by 'recap gc', "
    "and try again",
    sqlite3.SQLITE_IOERR: "cannot be read or written, its disk may be full or have failed; nothing was noted",
}
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of SQLite become one line: ``Failure`` for what may pass, ``InputError`` for the rest."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in _FAILURES:
            raise Failure(f"{path} {_FAILURES[code]} ({error})") from error
        if code in _DAMAGED:
            raise InputError(
                f"{path} is damaged ({error}): put a copy of it in its place, save what can be saved with "
                f"'sqlite3 {path} .recover', or move it elsewhere and see 'recap rollback --rebuild'"
            ) from error
        raise InputError(f"{path} cannot be read or written: {error}") from error
