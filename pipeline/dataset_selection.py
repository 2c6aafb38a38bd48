"""Which recorded episodes go into a dataset of any format, and whether that dataset is there already."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.episode import Outcome
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError

Outcomes = Mapping[str, str | None]
"""What people said of each episode, by id: ``success``, ``failure`` or ``None``."""


def check_selection(episodes: Sequence[EpisodeEntry], outcomes: Outcomes) -> None:
    """Raises ``InputError`` for no episodes, one named twice or without frames, and an unknown outcome."""
    if not episodes:
        raise InputError("a dataset needs one episode or more")
    if len({entry.id for entry in episodes}) != len(episodes):
        raise InputError("an episode is named twice in a dataset")
    for entry in episodes:
        if not entry.length:
            raise InputError(f"episode {entry.id} has no frames: leave it out")
        if outcomes.get(entry.id) not in (*Outcome, None):
            raise InputError(
                f"episode {entry.id} has the outcome {outcomes[entry.id]!r}: use success, failure or None"
            )


def content_bytes(entry: EpisodeEntry, outcomes: Outcomes) -> bytes:
    """All that decides what a dataset says of an episode, frames and label included; for a hash."""
    facts = [asdict(entry.info), entry.length, entry.fingerprint, outcomes.get(entry.id)]
    return json.dumps(facts, sort_keys=True).encode() + b"\n"


def is_written(out: Path, record: Mapping[str, Any], found: Mapping[str, Any] | None) -> bool:
    """Whether ``out`` holds what ``record`` says; ``found`` is the record read from it, if it has one.

    Raises ``InputError`` if ``out`` holds anything else.
    """
    if not out.exists() and not out.is_symlink():
        return False
    if found != record:
        raise InputError(f"{out} exists and holds something else: choose another name")
    return True
