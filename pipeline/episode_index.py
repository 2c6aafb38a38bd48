"""What the list of episodes shows, kept in a small database so that each file is opened only once.

Opening an HDF5 file costs 1–2 ms, and a damaged one can hang the HDF5 library for ever; so new files are
read in child processes, and what they said is kept under the file's path, inode, size and time of change.
The database belongs to the cache: it is safe to delete and to share between processes, and where it cannot
be written everything works without it, only slower.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import EpisodeInfo, Source
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.guarded_reading import guarded_map

_VERSION = 1  # of the rows; others are thrown away
TIMEOUT_S = 5.0  # of computing; reading a file's attributes takes milliseconds
_GROUP = 25  # files that one request to a child names
_MANY = 200  # from so many new files on, all cores read

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class IndexedEpisode:
    """An episode and its number of frames by source: (teleop, policy, intervention).

    ``sources`` is ``None`` where the file is damaged there.
    """

    entry: EpisodeEntry
    sources: tuple[int, int, int] | None

    @property
    def driver(self) -> str:
        """``person``, ``policy``, ``corrected`` (a policy, corrected by a person) or ``unknown``."""
        if self.sources is None:
            return "unknown"
        if self.sources[Source.INTERVENTION]:
            return "corrected"
        rolled_out = self.sources[Source.POLICY] or self.entry.info.policy_checkpoint is not None
        return "policy" if rolled_out else "person"


Result = IndexedEpisode | InputError

# Of this process; pages list episodes often.
_seen: dict[Path, tuple[Stamp, Result]] = {}


def look_up(
    paths: Sequence[Path], database: Path | None, *, timeout_s: float = TIMEOUT_S
) -> dict[Path, Result]:
    """What each file is, in the order of ``paths``; an ``InputError`` says why one cannot be read.

    ``database`` is the index's file, made if it is missing; ``None`` for files that are not to be kept.
    One that takes longer than ``timeout_s`` seconds of computing is taken for damaged.
    """
    stamps = {path: _stamp(path) for path in paths}
    new = [path for path in paths if stamps[path] is not None and _known(path, stamps[path]) is None]
    if new:
        with _opened(database) as rows:
            for path, stamp, result in _stored(rows, new):
                if stamps.get(path) == stamp:
                    _seen[path] = (stamp, result)
            unread = [path for path in new if _known(path, stamps[path]) is None]
            read = _read_all(unread, timeout_s)
            for path, document in read.items():
                read_at = stamps[path]
                assert read_at is not None  # only such are new
                _seen[path] = (read_at, _result(path, document))
            _store(rows, {path: (stamps[path], document) for path, document in read.items()})
    missing = "cannot read {}: there is no such file, or it may not be read"
    return {path: _known(path, stamps[path]) or InputError(missing.format(path)) for path in paths}


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _known(path: Path, stamp: Stamp | None) -> Result | None:
    found = _seen.get(path)
    return found[1] if found is not None and stamp is not None and found[0] == stamp else None


def _read_all(paths: Sequence[Path], timeout_s: float) -> dict[Path, dict[str, Any]]:
    """Reads files in children, several a request; those of a group that failed again one by one."""
    workers = (os.cpu_count() or 1) if len(paths) >= _MANY else 1
    groups = [tuple(paths[i : i + _GROUP]) for i in range(0, len(paths), _GROUP)]
    documents: dict[Path, dict[str, Any]] = {}
    again: list[tuple[Path, ...]] = []
    for group, result in guarded_map(_read_group, groups, workers=workers, timeout_s=timeout_s):
        if not isinstance(result, InputError):
            documents.update(zip(group, result, strict=True))
        elif len(group) == 1:
            documents[group[0]] = {"error": str(result)}
        else:
            again += [(path,) for path in group]
    for group, result in guarded_map(_read_group, again, workers=workers, timeout_s=timeout_s):
        documents[group[0]] = {"error": str(result)} if isinstance(result, InputError) else result[0]
    return documents


def _read_group(paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    return [_read(path) for path in paths]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"error": f"cannot read {path}: it is no file"}
    try:
        with EpisodeReader(path) as reader:
            document = {"info": asdict(reader.info), "length": len(reader), "fingerprint": reader.fingerprint}
            try:
                counts = np.bincount(reader.sources, minlength=3)[:3]
                document["sources"] = [int(count) for count in counts]
            except (InputError, TypeError, ValueError, MemoryError):
                document["sources"] = None
    except InputError as error:
        return {"error": str(error)}
    except (TypeError, ValueError, AttributeError) as error:  # attributes of types that nobody writes
        return {"error": f"{path} is damaged or incomplete: {' '.join(str(error).split())}"}
    return document


def _result(path: Path, document: dict[str, Any]) -> Result:
    if "error" in document:
        return InputError(document["error"])
    fields = document["info"]
    for name in ("cameras", "missing"):
        fields[name] = tuple(fields[name])
    info = EpisodeInfo(**fields)
    entry = EpisodeEntry(info.id, path, info, document["length"], document["fingerprint"])
    sources = document["sources"]
    return IndexedEpisode(entry, None if sources is None else tuple(sources))


@contextlib.contextmanager
def _opened(database: Path | None) -> Iterator[sqlite3.Connection | None]:
    """The open database, or ``None`` where there can be none."""
    connection = None
    if database is not None:
        try:
            connection = _connected(database)
        except sqlite3.DatabaseError as error:
            if not isinstance(error, sqlite3.OperationalError):
                with contextlib.suppress(OSError):
                    database.unlink()  # what a power cut left; it is only a cache
        except OSError:
            pass
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _connected(database: Path) -> sqlite3.Connection:
    database.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(database, timeout=5.0, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DROP TABLE IF EXISTS files")
        connection.execute(
            "CREATE TABLE files (path TEXT PRIMARY KEY, inode INTEGER, size INTEGER, changed_ns INTEGER, "
            "document TEXT) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    return connection


def _stored(
    connection: sqlite3.Connection | None, paths: Sequence[Path]
) -> Iterator[tuple[Path, Stamp, Result]]:
    if connection is None:
        return
    query = "SELECT path, inode, size, changed_ns, document FROM files"
    names = {str(path): path for path in paths}
    try:
        if len(paths) > _MANY:
            found = connection.execute(query).fetchall()
        else:
            marks = ",".join("?" * len(paths))
            found = connection.execute(f"{query} WHERE path IN ({marks})", list(names)).fetchall()
        for name, inode, size, changed_ns, document in found:
            if name in names:
                yield names[name], (inode, size, changed_ns), _result(names[name], json.loads(document))
    except (sqlite3.Error, ValueError, TypeError, KeyError):
        return  # of another version, or damaged: the files are read again


def _store(
    connection: sqlite3.Connection | None, read: dict[Path, tuple[Stamp | None, dict[str, Any]]]
) -> None:
    rows = []
    for path, (stamp, document) in read.items():
        # A lock or a missing permission may be gone the next moment, and the file's stamp would not tell.
        passing = "error" in document and ("lock file" in document["error"] or not os.access(path, os.R_OK))
        if stamp is not None and not passing:
            rows.append((str(path), *stamp, json.dumps(document)))
    if connection is None or not rows:
        return
    with contextlib.suppress(sqlite3.Error):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
