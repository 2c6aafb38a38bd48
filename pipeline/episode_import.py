"""Takes an episode file from elsewhere into a workspace: whole and checked, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.durable_files import publish
from pipeline.episode_check import TIMEOUT_S, examine_guarded
from pipeline.episode_finding import Kind, is_fatal
from pipeline.errors import InputError

_SUFFIX = ".import"  # of a copy that is not complete yet


def import_file(source: Path, final: Path, *, timeout_s: float = TIMEOUT_S) -> None:
    """Copies the episode file ``source`` to ``final``, which must not exist.

    The copy is read whole before it gets its name, so that a file damaged at its source or on the way
    never does. Raises ``InputError`` for such a one, and while another process imports it.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    copy = final.with_name(final.name + _SUFFIX)
    with _held(copy) as target:
        try:
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, target, 2**20)
            target.flush()
            # The check reads it through HDF5, which locks it likewise.
            fcntl.flock(target, fcntl.LOCK_SH | fcntl.LOCK_NB)
            _require_sound(source, copy, timeout_s)
            if os.path.lexists(final):
                raise InputError(f"cannot import {source}: {final} has appeared meanwhile")
            publish(copy, final)
        except OSError as error:
            raise InputError(f"cannot import {source}: {error}") from error
        finally:
            copy.unlink(missing_ok=True)


def remove_leftovers(episodes: Path) -> None:
    """Removes the incomplete copies of imports that were killed; their sources are elsewhere."""
    for copy in episodes.glob(f"*/*.h5{_SUFFIX}"):
        try:
            with copy.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                copy.unlink(missing_ok=True)
        except OSError:
            continue  # another process is at it


@contextmanager
def _held(copy: Path) -> Iterator[IO[bytes]]:
    """The new file ``copy``, open for writing; its lock tells others that it is no left-over."""
    taken = f"{copy} is being written by another process: wait for it"
    with copy.open("ab") as target:
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held the lock before may have published or removed the file that was opened here.
            if not os.path.samestat(os.fstat(target.fileno()), copy.stat()):
                raise InputError(taken)
        except (BlockingIOError, FileNotFoundError) as error:
            raise InputError(taken) from error
        target.truncate(0)
        yield target


def _require_sound(source: Path, copy: Path, timeout_s: float) -> None:
    [examination] = examine_guarded([copy], timeout_s=timeout_s)
    for finding in examination.findings:
        if is_fatal(finding) and finding.kind is not Kind.NAME:
            message = finding.message.replace(str(copy), str(source))
            raise InputError(f"cannot import {source}: {message.removeprefix(f'{source}: ')}")
