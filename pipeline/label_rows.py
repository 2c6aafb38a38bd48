"""The label store's rows as what they mean, and the other way round."""

from __future__ import annotations

import sqlite3
from typing import Any

from pipeline.label_state import EpisodeState
from pipeline.label_types import Label, LabelEvent, read_marks

_LABEL_FIELDS = (
    "episode_id",
    "outcome",
    "annotator",
    "note",
    "created_at",
    "event_id",
    "supersedes",
    "role",
    "quality",
)


def event_of(row: sqlite3.Row) -> LabelEvent:
    """A row of ``label_events``."""
    fields: dict[str, Any] = dict(row)
    return LabelEvent(**{**fields, "marks": read_marks(fields["marks"])})


def label_of(row: sqlite3.Row) -> Label:
    """A row of ``held_labels``."""
    return Label(**{name: row[name] for name in _LABEL_FIELDS}, marks=read_marks(row["marks"]))


def events_of(db: sqlite3.Connection, episode_id: str) -> list[LabelEvent]:
    """All events of an episode, oldest first."""
    rows = db.execute("SELECT * FROM label_events WHERE episode_id = ? ORDER BY event_id", (episode_id,))
    return [event_of(row) for row in rows.fetchall()]


def update_state(db: sqlite3.Connection, episode_id: str, state: EpisodeState) -> None:
    """Writes what follows from an episode's events into its row."""
    db.execute(
        "UPDATE episodes SET state = ?, outcome = ?, holds = ?, sole_annotator = ? WHERE id = ?",
        (
            state.name,
            state.outcome,
            None if state.holder is None else state.holder.event_id,
            state.sole_annotator,
            episode_id,
        ),
    )
