"""What SQLite says when it cannot go on, in words that say what became of the label and what to do."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from pipeline.errors import Failure, InputError

_NEEDED = 2**16
"""Bytes that opening a store takes beside it, for SQLite's own files."""

# By SQLite's primary result code, the low byte of the extended ones.
_FAILURES = {
    sqlite3.SQLITE_BUSY: "was locked by another program for {waited_s:g} s, nothing was stored: end what "
    "holds it (a database browser, a backup), and try again",
    sqlite3.SQLITE_FULL: "has no room left on its disk, nothing was stored: free some, as by 'recap gc', "
    "and try again",
    sqlite3.SQLITE_IOERR: "cannot be read or written, its disk may have failed; nothing was stored ({error})",
    sqlite3.SQLITE_CONSTRAINT: "refused this, nothing was stored: {error}",
}
_READ_ONLY = (
    "cannot be written, nothing was stored: its file, the -wal and -shm files beside it and its folder must "
    "be writable for you ({error})"
)
_BAD_INPUT = {
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CORRUPT: "is damaged, nothing was stored: put a backup in its place, or save what can "
    "be saved with 'sqlite3 {path} .recover' ({error})",
}

_MAY_BE_FULL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def is_full(path: Path) -> bool:
    """Whether there is no room on the store's disk to open it in; ``False`` where that cannot be asked."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _NEEDED


def explained(path: Path, error: sqlite3.Error, waited_s: float) -> Exception:
    """The error to raise instead: one line. Nothing of the transaction in which it came was stored."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in _MAY_BE_FULL and is_full(path):
        # SQLite calls it an I/O error where its own files beside the store find no room.
        code = sqlite3.SQLITE_FULL
    words = {"path": path, "error": error, "waited_s": waited_s}
    if code in _FAILURES:
        return Failure(f"the label store {path} {_FAILURES[code].format(**words)}")
    if code in _BAD_INPUT:
        return InputError(f"the label store {path} {_BAD_INPUT[code].format(**words)}")
    return InputError(f"cannot open the label store {path}: {error}")
