"""One process's way into the label store's file: one connection, shared by its threads."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pipeline.errors import InputError
from pipeline.label_faults import explained, is_full
from pipeline.label_schema import connect
from pipeline.site_config import LabelsSection

BUSY_TIMEOUT_S = 30.0
_T = TypeVar("_T")
UNCHECKED = LabelsSection(double_share=0.0, gold_share=0.0)


class LabelFile:
    """The file, and transactions on it. Building one touches nothing; the file is made at first use.

    ``clock`` gives the seconds since 1970 and must be the same for all who use the store. ``rules`` say how
    labels are checked; by default no episode is handed out twice, and everybody is a reviewer.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        *,
        rules: LabelsSection = UNCHECKED,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Remembers where the store is. Others' locks are waited for ``busy_timeout_s`` seconds."""
        self.path = path
        self.rules = rules
        self._clock = clock
        self._busy_timeout_s = busy_timeout_s
        # One connection behind a lock serves every thread: labels come seconds apart, and a connection
        # a thread would pile up in a web server that starts a thread for each page.
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._was_full = False

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        """Returns the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self.close()

    def _opened(self) -> sqlite3.Connection:
        reading = self._connection is not None and self._connection.in_transaction  # within a moment
        if not reading and self._connection is not None and self._inode != self._inode_now():
            # Removed, or a backup was put in its place: what we wrote into the old file would be lost.
            self.close()
        if not reading and self._connection is not None and self._was_full and not is_full(self.path):
            self.close()  # it could only be read, and now there is room
        if self._connection is None:
            self._was_full = is_full(self.path)
            self._connection = connect(self.path, self._busy_timeout_s)
            self._connection.execute("PRAGMA busy_timeout = 0")  # see _patiently
            self._inode = self._inode_now()
        return self._connection

    def _inode_now(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _read(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[sqlite3.Row]:
        with self._lock, self._explaining():
            db = self._opened()
            return self._patiently(lambda: db.execute(statement, parameters or {}).fetchall())

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Within: all questions are answered as of one moment. Nothing can be written within."""
        with self._lock, self._explaining():
            db = self._opened()
            db.execute("BEGIN")
            try:
                yield
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time over all processes; everything in it happens, or nothing."""
        with self._lock, self._explaining():
            db = self._opened()
            self._patiently(lambda: db.execute("BEGIN IMMEDIATE"))
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite ends it by itself where the disk failed
                    db.execute("ROLLBACK")
                raise

    def _patiently(self, act: Callable[[], _T]) -> _T:
        """Does it as soon as no other process is in the way; raises what SQLite says after the time-out.

        SQLite's own waiting sleeps the longer the longer it has waited, up to 100 ms, and so lets newcomers
        overtake for seconds. Here, who has waited longer looks more often.
        """
        began = time.monotonic()
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                waited_s = time.monotonic() - began
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or waited_s > self._busy_timeout_s:
                    raise
            # A transaction takes about 1 ms. After a second it is no crowd but one that holds on.
            longest_s = 0.02 if waited_s > 1 else 0.004 if waited_s < 0.01 else 0.001
            time.sleep(longest_s * random.uniform(0.25, 1))

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explained(self.path, error, self._busy_timeout_s) from error

    def _times(self, lease_s: float) -> dict[str, float]:
        now = self._clock()
        return {"now": now, "expires": now + lease_s}

    @staticmethod
    def _require_known(db: sqlite3.Connection, episode_id: str) -> None:
        if db.execute("SELECT 1 FROM episodes WHERE id = ?", (episode_id,)).fetchone() is None:
            raise unknown(episode_id)


def unknown(episode_id: str) -> InputError:
    """The error for an episode that the store does not know."""
    return InputError(f"the label store does not know an episode {episode_id!r}: see 'recap episodes list'")
