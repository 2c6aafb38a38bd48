"""Whether a command may write where it was told to; asked before the work is done."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import InputError
from pipeline.workspace import Workspace

_OWN_FOLDERS = ("episodes", "cache", "steps", "quarantine", "importing", "snapshots")
"""What the workspace keeps for itself; ``datasets`` is free for exports."""


def require_place(out: Path, workspace: Workspace) -> None:
    """Raises ``InputError`` where nothing can or should be written at ``out``; makes no folder."""
    root, place = workspace.root.resolve(), out.resolve()
    own = next((name for name in _OWN_FOLDERS if place.is_relative_to(root / name)), None)
    if own is not None:
        raise InputError(
            f"{out} lies in the workspace's own folder {own!r}: write elsewhere, such as to "
            f"{workspace.datasets / out.name}"
        )
    try:
        if place.exists():
            return
        above = next(folder for folder in place.parents if folder.exists())
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from error
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "you may not write there" if above.is_dir() else "it is a file"
        raise InputError(f"{out} cannot be written into {above}: {why}, name another place")


def require_file_place(path: Path) -> None:
    """Raises ``InputError`` unless ``path`` is a file or a new name in a folder that is there."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder: name a file")
        if not path.parent.is_dir():
            raise InputError(f"{path} cannot be written: there is no folder {path.parent}, make it first")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
