"""The folder for files that cannot be used as they are: moved there whole, never deleted."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from pipeline.durable_files import fsync_path

_LOG = logging.getLogger(__name__)


def to_quarantine(path: Path, folder: Path, reason: str) -> Path:
    """Moves ``path`` (a file, folder or link) into ``folder`` and returns its place there.

    Beside it comes ``<name>.txt``, which says why, when and from where. The move is one rename, so a crash
    leaves the file in one of the two places. A name that is taken gets a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    count = 1
    # A note without its file is what a crash just before the move leaves: its name is free.
    while os.path.lexists(target):
        count += 1
        target = folder / f"{path.name}.{count}"
    when = datetime.now(UTC).isoformat(timespec="seconds")
    note = f"file: {target.name}\nfrom: {path.absolute()}\nwhen: {when}\nwhy: {reason}\n"
    target.with_name(target.name + ".txt").write_text(note)
    path.rename(target)
    for changed in (folder, path.parent):
        fsync_path(changed)
    _LOG.info("moved %s to %s: %s", path, target, reason)
    return target
