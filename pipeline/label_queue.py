"""Which episode an annotator gets next, as SQL; the caller holds the transaction.

An annotator may get

* an episode without a label;
* one that somebody else alone has labelled, to be labelled again without seeing that label: if the
  episode's draw (a hash of its id, the same for everybody) is below ``double_share``, or, in the order
  ``helpful``, if its priority says that the value model contradicts its label;
* now and then a gold episode that they have never answered. When, follows from a hash of their name and the
  number of their answers so far: it looks random and needs no memory.

Never one that another person holds. The lease looks the same in all three cases.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from pipeline.label_state import draw
from pipeline.label_types import Lease, QueueFilter
from pipeline.site_config import LabelsSection

CONTRADICTED = 1.0
"""From this priority on, a labelled episode is one whose label the value model contradicts."""

_WANTED = """
    (:task IS NULL OR task = :task) AND (:driver IS NULL OR driver = :driver)
    AND (leased_by IS NULL OR lease_expires <= :now)
    AND id NOT IN (SELECT value FROM json_each(:skipped))
"""
_FIRST = f"SELECT position, task, priority, 0 AS blind FROM episodes WHERE state = 'unlabelled' AND {_WANTED}"
_SECOND = f"""
    SELECT position, task, priority, 1 AS blind FROM episodes WHERE state = 'single' AND {_WANTED}
    AND sole_annotator <> :annotator AND (draw < :double_share OR (:helpful AND priority >= {CONTRADICTED}))
"""
_GOLD = f"""
    SELECT position FROM episodes WHERE state = 'gold' AND {_WANTED} AND NOT EXISTS
        (SELECT 1 FROM label_events WHERE episode_id = episodes.id AND annotator = :annotator)
    ORDER BY draw LIMIT 1
"""
_MINE_TOO = _WANTED.replace("(leased_by IS NULL", "(leased_by IS NULL OR leased_by = :annotator")
_ASKED = "(SELECT 1 FROM label_events WHERE episode_id = episodes.id AND annotator = :annotator)"
LEFT = f"""
    SELECT (SELECT COUNT(*) FROM label_events WHERE annotator = :annotator),
        (SELECT COUNT(*) FROM standing_labels AS e JOIN episodes AS o ON o.id = e.episode_id
         WHERE e.annotator = :annotator AND e.role IN ('label', 'second', 'answer')
         AND (:task IS NULL OR o.task = :task) AND (:driver IS NULL OR o.driver = :driver)),
        COALESCE(SUM(state = 'unlabelled' OR (state = 'single' AND sole_annotator <> :annotator
            AND (draw < :double_share OR (:helpful AND priority >= {CONTRADICTED})))), 0),
        COALESCE(SUM(state = 'gold' AND NOT EXISTS {_ASKED}), 0)
    FROM episodes WHERE {_MINE_TOO}
"""
"""Of one annotator: events, standing answers, ordinary episodes and gold ones that they may still get."""

_ORDER_BY = {"oldest": "position", "task": "task, position", "helpful": "priority DESC, position"}


def claim_next(
    db: sqlite3.Connection,
    annotator: str,
    wanted: QueueFilter,
    skipped: Collection[str],
    rules: LabelsSection,
    now: float,
    expires: float,
) -> Lease | None:
    """Leases the next episode until ``expires``; ``None`` when there is none for this annotator."""
    values = {
        "annotator": annotator,
        "task": wanted.task,
        "driver": wanted.driver,
        "helpful": wanted.order == "helpful",
        "double_share": rules.double_share,
        "skipped": json.dumps(list(skipped)),
        "now": now,
    }
    found = None
    if rules.gold_share > 0 and gold_is_due(db, annotator, rules.gold_share):
        found = db.execute(_GOLD, values).fetchone()
    if found is not None:
        return _lease(db, found["position"], annotator, expires, False)
    order = _ORDER_BY[wanted.order]
    parts = [_FIRST, _SECOND] if rules.double_share > 0 or values["helpful"] else [_FIRST]
    each = " UNION ALL ".join(f"SELECT * FROM ({part} ORDER BY {order} LIMIT 1)" for part in parts)
    found = db.execute(f"SELECT position, blind FROM ({each}) ORDER BY {order} LIMIT 1", values).fetchone()
    return None if found is None else _lease(db, found["position"], annotator, expires, bool(found["blind"]))


def gold_is_due(db: sqlite3.Connection, annotator: str, gold_share: float) -> bool:
    """Whether this annotator's next answer is to be asked for on a gold episode."""
    (given,) = db.execute("SELECT COUNT(*) FROM label_events WHERE annotator = ?", (annotator,)).fetchone()
    return draw("gold", annotator, str(given)) < gold_share


def answers_to_come(annotator: str, given: int, ordinary: int, gold: int, gold_share: float) -> int:
    """How many answers the queue will still ask for, gold episodes among them, after ``given`` events.

    ``ordinary`` and ``gold`` are the episodes that there are, those on the annotator's screen included.
    """
    come = 0
    while ordinary or gold:
        if gold and gold_share > 0 and draw("gold", annotator, str(given + come)) < gold_share:
            gold -= 1
        elif ordinary:
            ordinary -= 1
        else:
            break
        come += 1
    return come


def claim_one(
    db: sqlite3.Connection,
    episode_id: str,
    annotator: str,
    rules: LabelsSection,
    now: float,
    expires: float,
) -> Lease | None:
    """Leases this episode; ``None`` while somebody else holds it, or where only a reviewer may speak."""
    row = db.execute("SELECT * FROM episodes WHERE id = ?", (episode_id,)).fetchone()
    if row["leased_by"] not in (None, annotator) and row["lease_expires"] > now:
        return None
    if row["state"] == "adjudicated" or (row["state"] == "disputed" and not _said(db, episode_id, annotator)):
        return None
    somebody_elses = row["state"] == "single" and row["sole_annotator"] != annotator
    again = row["leased_by"] == annotator and bool(row["lease_blind"])  # as after a page was loaded again
    doubled = row["draw"] < rules.double_share or _has_second(db, episode_id)
    blind = somebody_elses and (again or doubled)
    return _lease(db, row["position"], annotator, expires, blind)


def _said(db: sqlite3.Connection, episode_id: str, annotator: str) -> bool:
    query = "SELECT 1 FROM standing_labels WHERE episode_id = ? AND annotator = ? LIMIT 1"
    return db.execute(query, (episode_id, annotator)).fetchone() is not None


def _has_second(db: sqlite3.Connection, episode_id: str) -> bool:
    # Also one that was undone: whoever takes it up again is to be as independent as before.
    query = "SELECT 1 FROM label_events WHERE episode_id = ? AND role = 'second' LIMIT 1"
    return db.execute(query, (episode_id,)).fetchone() is not None


def _lease(db: sqlite3.Connection, position: int, annotator: str, expires: float, blind: bool) -> Lease:
    row = db.execute(
        "UPDATE episodes SET fence = fence + 1, leased_by = ?, lease_expires = ?, lease_blind = ?"
        " WHERE position = ? RETURNING id, fence, lease_expires",
        (annotator, expires, blind, position),
    ).fetchone()
    return Lease(row["id"], annotator, row["fence"], row["lease_expires"])
