"""What a check of episodes finds: what, where, how bad, and what a repair may do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

Severity = Literal["fatal", "warning"]

# In an episode's ``extra``: the fingerprint of the damaged recording that its frames were cut from.
CUT_FROM = "cut_from"


class Kind(StrEnum):
    """What was found. Each is about the file, the frames, or what else the workspace holds."""

    UNREADABLE = "unreadable"  # no episode, or damage that keeps it from being opened or read to its end
    BARRED = "barred"  # this process may not read it now: says nothing about its content
    LAYOUT = "layout"  # a dataset or attribute is missing or is not as the schema says
    ROWS = "rows"  # from some frame on it cannot be read; the frames before are whole
    CHANGED = "changed"  # the frames are not those that were recorded, nobody knows which
    NAME = "name"
    EMPTY = "empty"
    NUMBERS = "numbers"
    TIME = "time"
    CAMERA = "camera"
    CLIPPED = "clipped"
    TRUNCATED = "truncated"
    CUT = "cut"  # from a damaged file, whose fingerprint does not vouch for the frames kept
    DROPPED = "dropped"
    MISSING = "missing"
    DUPLICATE = "duplicate"
    COPY = "copy"
    TASK = "task"
    UNLABELLED = "unlabelled"
    UNFINISHED = "unfinished"
    STRAY = "stray"  # where, or of a name, that nothing reads


# What a rule yields: severity, kind, message, and the first bad frame where there is one.
Found = Iterator[tuple[Severity, Kind, str, int | None]]


@dataclass(frozen=True)
class Finding:
    """One thing found.

    *Fatal* means that the episode must not be trained on, *warning* that a person should look.
    ``episode_id`` is ``None`` where the file does not tell it. ``row`` is the first frame that cannot be
    used, where the damage has such a place: all frames before it are whole.
    """

    severity: Severity
    episode_id: str | None
    path: Path
    message: str
    kind: Kind
    row: int | None = None


def is_fatal(finding: Finding) -> bool:
    """For filters."""
    return finding.severity == "fatal"


def without_path(message: str, path: Path) -> str:
    """``message`` for a place that names the file already."""
    short = message.removeprefix(f"{path}: ").replace(f"cannot read {path}", "it cannot be read")
    return short.replace(f"{path} ", "it ")
