"""SQLite files on their way to a store and back: consistent copies, compared by what they say.

A database in the store is one object: a line of JSON that says what it is, and the SQLite file. It is
replaced only where it is still what it was when it was looked at, so of two machines one is told. On the way
back it is put into the database that is there in one transaction, which whoever has that open sees as any
other change.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.durable_files import fsync_path, publish
from pipeline.errors import Failure
from pipeline.object_store import Damaged, ObjectStore, Version
from workflows.remote_layout import DATABASES, REPLACED, is_sha256, plain_json

NAMES = ("labels.sqlite", "runs.sqlite")
"""What travels. Not schedules.sqlite: its commands are run, and it belongs to the machine that ticks."""
_HEADER_BYTES = 4096
_LARGEST = 2**31
_WAIT_S = 20.0


class _OtherRowsError(Exception):
    """Somebody has written meanwhile; the copy is undone."""


@dataclass(frozen=True)
class StoredDatabase:
    """A database in the store: ``content`` is the digest of its rows, ``generation`` counts its versions.

    ``by`` and ``at`` (UTC) say who wrote it last, and when; ``sha256`` and ``bytes`` are the SQLite file's.
    """

    content: str
    sha256: str
    bytes: int
    generation: int
    by: str
    at: str


def object_name(name: str) -> str:
    """The name of a database's object."""
    return f"{DATABASES}/{name}"


def rows_digest(path: Path) -> str | None:
    """The SHA-256 of a database's tables and rows, or ``None`` where there is nothing in it.

    Equal for copies; the bytes of SQLite files are not. Raises ``Failure`` where it cannot be read.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return None
    with _explained(path), closing(sqlite3.connect(path, timeout=_WAIT_S)) as database:
        return _digest(database)


def copy_of(path: Path, aside: Path) -> str | None:
    """Writes a consistent copy of a database that may be in use; its digest, or ``None`` for an empty one."""
    if rows_digest(path) is None:
        return None
    opened = closing(sqlite3.connect(path, timeout=_WAIT_S))
    with _explained(path), opened as source, closing(sqlite3.connect(aside)) as copy:
        source.backup(copy)
        # Not one that needs files beside it.
        copy.execute("PRAGMA journal_mode = DELETE")
        return _digest(copy)


def look_up(store: ObjectStore, name: str) -> tuple[StoredDatabase, Version] | None:
    """What the store says of a database, without its rows; ``None`` where it has none."""
    found = store.read_start(object_name(name), _HEADER_BYTES)
    if found is None:
        return None
    return _header(found[0], f"{store.url}/{object_name(name)}")[0], found[1]


def send_database(
    store: ObjectStore, name: str, copy: Path, made: StoredDatabase, former: Version | None
) -> bool:
    """Writes a copy as the database; ``False`` where the store's is not ``former`` any more."""
    data = json.dumps(asdict(made)).encode() + b"\n" + copy.read_bytes()
    if former is None:
        return store.create(object_name(name), data) is not None
    return store.replace(object_name(name), data, former) is not None


def described(copy: Path, content: str, generation: int, by: str, at: str) -> StoredDatabase:
    """What is said of a copy."""
    data = copy.read_bytes()
    return StoredDatabase(content, hashlib.sha256(data).hexdigest(), len(data), generation, by, at)


def keep_replaced(store: ObjectStore, name: str) -> None:
    """Keeps the store's database under another name, before a person has it overwritten."""
    found = store.read(object_name(name), _LARGEST)
    if found is not None:
        header, _ = _header(found, f"{store.url}/{object_name(name)}")
        store.write(f"{REPLACED}/{name}/{header.generation:06}-{header.content[:16]}", found)


def bring_database(
    store: ObjectStore, name: str, target: Path, expected: str | None
) -> StoredDatabase | None:
    """Puts the store's database at ``target``; ``None`` where the rows there are not (now) ``expected``.

    Raises :class:`Damaged` where it is not what it says, ``Failure`` where it cannot be written.
    """
    place = f"{store.url}/{object_name(name)}"
    found = store.read(object_name(name), _LARGEST)
    if found is None:
        raise Damaged(f"{place} is gone")
    header, data = _header(found, place)
    if (hashlib.sha256(data).hexdigest(), len(data)) != (header.sha256, header.bytes):
        raise Damaged(f"{place} is damaged: its content has another SHA-256 than it should")
    aside = target.with_name(f".{target.name}.arrived")
    aside.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _explained(target):
            aside.write_bytes(data)
            _check(aside, header, place)
            if expected is None and not (target.exists() and target.stat().st_size):
                publish(aside, target)
            elif not _put_into(target, aside, expected):
                return None
            fsync_path(target)
    finally:
        aside.unlink(missing_ok=True)
    return header


def _put_into(target: Path, arrived: Path, expected: str | None) -> bool:
    """``arrived`` in place of what is at ``target``, in one transaction, where they are ``expected``."""
    opened = closing(sqlite3.connect(target, timeout=_WAIT_S, isolation_level=None))
    with opened as database, closing(sqlite3.connect(arrived)) as source:
        # Nobody may write between the look and the copy, which is a transaction of its own.
        if database.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            # The lock of the transaction in which we look is kept until the one that copies.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("BEGIN IMMEDIATE")
            there = _digest(database)
            database.execute("COMMIT")
            if there == expected:
                source.backup(database)
            return there == expected
        looked = False

        def look(*_: int) -> None:
            """After the first page: nobody else can write now, and what was there can still be read."""
            nonlocal looked
            if not looked:
                looked = True
                with closing(sqlite3.connect(target, timeout=_WAIT_S)) as reader:
                    if _digest(reader) != expected:
                        raise _OtherRowsError

        try:
            source.backup(database, pages=1, progress=look)
        except _OtherRowsError:
            return False
        return True


def _digest(database: sqlite3.Connection) -> str | None:
    schema = database.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
    ).fetchall()
    if not schema:
        return None
    hasher = hashlib.sha256(repr(database.execute("PRAGMA user_version").fetchone()).encode())
    for kind, name, sql in schema:
        hasher.update(repr((kind, name, sql)).encode())
        if kind == "table":
            quoted = '"' + name.replace('"', '""') + '"'
            columns = len(database.execute(f"PRAGMA table_info({quoted})").fetchall())
            order = ", ".join(str(column + 1) for column in range(columns))
            for row in database.execute(f"SELECT * FROM {quoted} ORDER BY {order}"):
                hasher.update(repr(row).encode(errors="surrogatepass"))
    return hasher.hexdigest()


def _header(data: bytes, place: str) -> tuple[StoredDatabase, bytes]:
    line, end, rest = data.partition(b"\n")
    document = plain_json(line, place) if end else {}
    try:
        header = StoredDatabase(**document)
    except TypeError:
        raise Damaged(f"{place} is no database that this software knows") from None
    numbers = all(type(value) is int and value >= 0 for value in (header.bytes, header.generation))
    if not (numbers and is_sha256(header.content) and is_sha256(header.sha256)):
        raise Damaged(f"{place} is no database that this software knows")
    # Shown to people: no control characters from whoever wrote it.
    by, at = (" ".join(str(text).split())[:100] for text in (header.by, header.at))
    return StoredDatabase(header.content, header.sha256, header.bytes, header.generation, by, at), rest


def _check(arrived: Path, header: StoredDatabase, place: str) -> None:
    with closing(sqlite3.connect(arrived)) as database:
        try:
            sound = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            content = _digest(database) if sound else None
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            content = None
    if content != header.content:
        raise Damaged(f"{place} is damaged: it is no SQLite file with the rows that it says it has")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Failure(f"{path} cannot be copied: {error}; nothing of it was changed") from error


def who() -> str:
    """This machine and process, as others are told."""
    import getpass

    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{os.uname().nodename} (process {os.getpid()})"
