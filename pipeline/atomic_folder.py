"""Folders that appear whole or not at all.

A folder is filled aside, under a hidden name beside its final one, flushed to the disk and renamed.
Whoever finds a folder under its final name finds all of it, whenever the builder may have been killed.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.durable_files import fsync_path


@contextmanager
def building(final: Path, *, replace: bool = False, links_are_durable: bool = False) -> Iterator[Path]:
    """Yields an empty folder that becomes ``final`` when the block ends without an exception.

    Where ``final`` exists by then, it is kept and the new folder thrown away; with ``replace`` it is
    the other way round, and for the moment between two renames there is none. So builders of equal
    content may run at the same time. On an exception nothing appears under ``final``. What a killed
    builder of the same ``final`` left aside is removed first; a living builder's work is left alone.
    Whatever else the block puts into the yielded folder's parent is thrown away at the end.

    With ``links_are_durable``, files that have other names too are taken to have been flushed under
    those, as everything that was published has: thousands of them would take as many milliseconds.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(final)
    holder, lock = _locked_folder(final)
    try:
        aside = holder / final.name
        aside.mkdir()
        yield aside
        _sync_tree(aside, links_are_durable)
        _rename_into_place(aside, final, replace)
        # Before the slow flush: a kill in between would leave it, and who finds the result looks no further.
        shutil.rmtree(holder, ignore_errors=True)
        fsync_path(final.parent)
    finally:
        shutil.rmtree(holder, ignore_errors=True)
        os.close(lock)


def remove_leftovers(final: Path) -> None:
    """Removes what killed builders of ``final`` left beside it.

    A living builder holds a lock on its folder, which the kernel drops when the process ends however
    it ends; unlike a process number, a lock cannot be mistaken for somebody else's.
    """
    _remove_abandoned(final.parent, f"{glob.escape(_prefix(final))}*")


def remove_all_leftovers(parent: Path) -> None:
    """Removes what killed builders of any folder in ``parent`` left there, once for all of them.

    For a store of many folders, after the last is built: a builder killed between its rename and its tidying
    leaves something beside a folder that is whole, which nobody will build again.
    """
    _remove_abandoned(parent, f".*{_INFIX}*")


def _remove_abandoned(parent: Path, pattern: str) -> None:
    for leftover in parent.glob(pattern):
        with suppress(FileNotFoundError, BlockingIOError):
            lock = os.open(leftover, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)


_INFIX = ".building-"


def _prefix(final: Path) -> str:
    return f".{final.name}{_INFIX}"


def _locked_folder(final: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(final), dir=final.parent))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another process may have taken the folder for a leftover before it was locked.
                if folder.exists():
                    return folder, lock
            os.close(lock)


def _rename_into_place(aside: Path, final: Path, replace: bool) -> None:
    while True:
        try:
            aside.rename(final)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if not replace:
            return
        former = Path(tempfile.mkdtemp(prefix="former-", dir=aside.parent))
        # Gone where another builder has just replaced it too.
        with suppress(FileNotFoundError):
            final.rename(former)


def _sync_tree(folder: Path, links_are_durable: bool) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            path = Path(parent) / name
            if not (links_are_durable and path.stat().st_nlink > 1):
                fsync_path(path)
        fsync_path(Path(parent))
