"""What the driver did, in SQLite: iterations, the steps they used, and which checkpoint is champion.

Written by the driver alone, never by a step. Everything is keyed by what it says, so a driver that
runs the same iteration again adds nothing. The champion's history only grows; its last entry counts. What
was first decided about an iteration's candidate stands: nothing that is decided later replaces it.

An entry of the history is a promotion, or a person's rollback to an earlier champion, which stands after
the last iteration that there was (``since``): so the next one compares with the champion that holds, and
repeating an earlier one compares with the champion of its time.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from workflows.ledger_faults import WAIT_S, explained
from workflows.ledger_loss import require_not_lost
from workflows.ledger_schema import prepare
from workflows.step_store import StepResult


@dataclass(frozen=True)
class Iteration:
    """One finished turn of the loop: its candidate's step key, when it was first noted (UTC), its summary."""

    n: int
    candidate: str
    recorded: str
    summary: dict[str, Any]


@dataclass(frozen=True)
class Champion:
    """A promotion: the step that made the checkpoint, its folder, in which iteration (0: the base), why.

    ``promoted`` is when, in UTC. Where ``kind`` is ``rollback`` and not ``promotion``, ``iteration`` still is
    the one that made the checkpoint; ``since`` is the last iteration when the entry was written.
    """

    name: str
    key: str
    path: Path
    iteration: int
    reason: str
    promoted: str
    kind: str
    since: int

    @property
    def origin(self) -> str:
        """Where the checkpoint is from, in words: ``base`` or ``iteration N``."""
        return "base" if self.iteration == 0 else f"iteration {self.iteration}"


class Ledger:
    """The ledger of one workspace. Reading one that was never written finds nothing and creates nothing.

    Raises ``InputError`` where the file is damaged, or empty or gone although there were turns of the loop;
    ``Failure`` where it stays locked or the disk is full.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def iteration_of(self, candidate: str) -> int:
        """The number of the iteration with this candidate's step key; the next free one if it is new."""
        known = {iteration.candidate: iteration.n for iteration in self.iterations()}
        return known.get(candidate, max(known.values(), default=0) + 1)

    def decide(
        self, n: int, candidate: StepResult, summary: dict[str, Any], used: Iterable[StepResult]
    ) -> None:
        """Notes what was decided about an iteration, the steps it used, and the promotion if it is one.

        In one transaction, so that a kill leaves all of it or nothing. A decision that is noted already
        stands: then only what its promotion lacks is added, as left by versions before that transaction, and
        that only while nothing newer holds. Raises ``Failure`` as :meth:`record_iteration` and
        :meth:`promote` do.
        """
        self._require_published(candidate.name, candidate.key)
        rows = [(n, r.name, r.key, r.seconds, _now()) for r in used]
        with self._writing() as database:
            noted = self._noted(database, n, candidate.key)
            if noted is None or "promoted" not in noted:
                _note(database, n, candidate.key, summary)
                noted = summary
            if database.execute("SELECT 1 FROM steps WHERE iteration = ? LIMIT 1", (n,)).fetchone() is None:
                database.executemany("INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?, ?)", rows)
            if noted["promoted"]:
                database.execute(
                    "INSERT OR IGNORE INTO champions (iteration, step, key, reason, promoted) "
                    "SELECT ?, ?, ?, ?, ? WHERE (SELECT MAX(n) FROM iterations) = ? "
                    "AND NOT EXISTS (SELECT 1 FROM champions WHERE COALESCE(since, iteration) >= ?)",
                    (n, candidate.name, candidate.key, str(noted.get("reason", "")), _now(), n, n),
                )

    def record_iteration(self, n: int, candidate: str, summary: dict[str, Any]) -> None:
        """Notes iteration ``n`` and its summary (plain JSON); nothing changes where just that is noted.

        When it was first noted stays. Raises ``Failure`` where ``n`` or the candidate belongs to another
        iteration.
        """
        with self._writing() as database:
            self._noted(database, n, candidate)
            _note(database, n, candidate, summary)

    def _noted(self, database: sqlite3.Connection, n: int, candidate: str) -> dict[str, Any] | None:
        """The summary of iteration ``n``; ``Failure`` where the number or the candidate is another's."""
        taken = database.execute(
            "SELECT n FROM iterations WHERE (n = ?) <> (candidate = ?)", (n, candidate)
        ).fetchone()
        if taken is not None:
            raise Failure(f"iteration {n} cannot be noted: iteration {taken[0]} has its number or candidate")
        row = database.execute("SELECT summary FROM iterations WHERE n = ?", (n,)).fetchone()
        return dict(json.loads(row[0])) if row is not None else None

    def record_steps(self, iteration: int, results: Iterable[StepResult]) -> None:
        """Notes which published steps an iteration used."""
        rows = [(iteration, r.name, r.key, r.seconds, _now()) for r in results]
        with self._writing() as database:
            database.executemany("INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?, ?)", rows)

    def set_base(self, name: str, key: str, reason: str) -> bool:
        """Makes a published step's checkpoint the first champion; ``False`` where there is a champion."""
        if self.champion() is not None:
            return False
        return self.promote(name, key, 0, reason)

    def promote(self, name: str, key: str, iteration: int, reason: str) -> bool:
        """Makes a published step's checkpoint the champion.

        Returns ``False``, and changes nothing, where this iteration promoted this step before. Raises
        ``Failure`` where the step is not published.
        """
        self._require_published(name, key)
        with self._writing() as database:
            added = database.execute(
                "INSERT OR IGNORE INTO champions (iteration, step, key, reason, promoted) "
                "VALUES (?, ?, ?, ?, ?)",
                (iteration, name, key, reason, _now()),
            )
            return added.rowcount == 1

    def _require_published(self, name: str, key: str) -> None:
        path = self._workspace.steps / name / key
        if not path.is_dir():
            raise Failure(f"cannot promote {name}: there is no {path}")

    def roll_back(self, to: Champion, reason: str) -> None:
        """Makes an earlier champion the champion again: another entry of the history.

        Raises ``Failure`` where its step is not published any more, or it is the champion already.
        """
        if not to.path.is_dir():
            raise Failure(f"cannot go back to {to.name}: there is no {to.path}")
        with self._writing() as database:
            last = database.execute("SELECT step, key FROM champions ORDER BY id DESC LIMIT 1").fetchone()
            if last == (to.name, to.key):
                raise Failure(f"{to.name}/{to.key} is the champion already")
            database.execute(
                "INSERT INTO champions (iteration, step, key, reason, promoted, kind, since) "
                "SELECT ?, ?, ?, ?, ?, 'rollback', COALESCE(MAX(n), 0) FROM iterations",
                (to.iteration, to.name, to.key, reason, _now()),
            )

    def restore(
        self,
        champions: Iterable[Champion],
        iterations: Iterable[Iteration],
        steps: Mapping[int, Iterable[StepResult]],
    ) -> None:
        """Writes a whole history, as :mod:`workflows.ledger_rebuild` puts it together, into an empty ledger.

        All of it or nothing. Raises ``InputError`` where there is a history already.
        """
        noted = [(i.n, i.candidate, i.recorded, json.dumps(i.summary, sort_keys=True)) for i in iterations]
        with self._writing(restoring=True) as database:
            if database.execute("SELECT 1 FROM champions LIMIT 1").fetchone() is not None:
                raise InputError(f"{self._workspace.ledger_path} has a history already")
            database.executemany(
                "INSERT INTO champions (iteration, step, key, reason, promoted) VALUES (?, ?, ?, ?, ?)",
                [(c.iteration, c.name, c.key, c.reason, c.promoted) for c in champions],
            )
            database.executemany("INSERT INTO iterations VALUES (?, ?, ?, ?)", noted)
            for n, used in steps.items():
                rows = [(n, step.name, step.key, step.seconds, _now()) for step in used]
                database.executemany("INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?, ?)", rows)

    def has_history(self) -> bool:
        """Whether there is any champion or iteration; asks nothing but the file."""
        return bool(
            self._rows("SELECT 1 FROM champions LIMIT 1") or self._rows("SELECT 1 FROM iterations LIMIT 1")
        )

    def champion(self) -> Champion | None:
        """The checkpoint that was promoted last, or ``None`` before the first promotion."""
        history = self.champions()
        return history[-1] if history else None

    def champions(self) -> list[Champion]:
        """Every promotion and rollback, oldest first."""
        rows = self._read("SELECT * FROM champions ORDER BY id")
        if not rows:
            require_not_lost(self._workspace)
        history = []
        for _, iteration, name, key, reason, promoted, *rest in rows:
            kind, since = rest or ("promotion", None)
            path = self._workspace.steps / name / key
            standing = iteration if since is None else since
            history.append(Champion(name, key, path, iteration, reason, promoted, kind, standing))
        return history

    def iterations(self) -> list[Iteration]:
        """Every iteration, in order."""
        rows = self._read("SELECT n, candidate, recorded, summary FROM iterations ORDER BY n")
        return [Iteration(n, candidate, noted, json.loads(text)) for n, candidate, noted, text in rows]

    def steps(self, iteration: int) -> list[tuple[str, str, float]]:
        """Name, key and seconds of each step that an iteration used."""
        query = "SELECT name, key, seconds FROM steps WHERE iteration = ? ORDER BY name, key"
        return [(name, key, seconds) for name, key, seconds in self._read(query, (iteration,))]

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        if not self._is_there():
            require_not_lost(self._workspace)
        return self._rows(query, values)

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        path = self._workspace.ledger_path
        if not self._is_there():
            return []
        with explained(path), closing(sqlite3.connect(path, timeout=WAIT_S)) as database:
            if database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None:
                return []  # made by somebody who was killed before the tables were
            return database.execute(query, values).fetchall()

    def _is_there(self) -> bool:
        path = self._workspace.ledger_path
        return path.is_file() and path.stat().st_size > 0

    @contextmanager
    def _writing(self, *, restoring: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing, also when the process is killed."""
        path = self._workspace.ledger_path
        if not restoring and not self._is_there():
            require_not_lost(self._workspace)
        path.parent.mkdir(parents=True, exist_ok=True)
        connected = closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None))
        with explained(path), connected as database:
            database.execute("PRAGMA synchronous = FULL")
            prepare(database)
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                # A full disk has SQLite itself undo it.
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")


def _note(database: sqlite3.Connection, n: int, candidate: str, summary: dict[str, Any]) -> None:
    """Writes an iteration; of one that is there the summary, not when it was first noted."""
    database.execute(
        "INSERT INTO iterations VALUES (?, ?, ?, ?) ON CONFLICT (n) DO UPDATE SET "
        "summary = excluded.summary WHERE summary <> excluded.summary",
        (n, candidate, _now(), json.dumps(summary, sort_keys=True, allow_nan=False)),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
