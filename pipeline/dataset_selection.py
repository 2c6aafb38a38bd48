"""Which recorded episodes go into a dataset of any format, and whether that dataset is there already."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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


def is_written(
    out: Path,
    record: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    *,
    episodes: int,
    held: Callable[[Path], int],
) -> bool:
    """Whether ``out`` holds what ``record`` says; ``found`` is the record read from it, if it has one.

    Raises ``InputError`` if ``out`` holds anything else. For the message ``episodes`` says how many are to be
    written, and ``held(out)``, asked only then, how many an export of the same kind has; it raises
    ``InputError`` where that cannot be read.
    """
    if not out.exists() and not out.is_symlink():
        return False
    if found == record:
        return True
    if found is None or found.get("kind") != record["kind"]:
        raise InputError(f"{out} exists and holds something else: choose another name")
    try:
        then = held(out)
    except InputError:
        counts = ""
    else:
        noun = "episode" if then == 1 else "episodes"
        counts = f" ({then} {noun} then, {episodes} now)" if then != episodes else ""
    raise InputError(
        f"{out} holds an export of other episodes, labels or options{counts}: exports are never changed, "
        "choose another name"
    )
