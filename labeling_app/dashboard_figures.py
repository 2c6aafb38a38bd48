"""The numbers of the dashboard, from the list of episodes, the label events, and the ledger of the loop."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from labeling_app.queue_sidebar import PAUSE_S
from pipeline.episode import Source
from pipeline.labels import OWN_ANSWERS, LabelEvent
from pipeline.workspace import IndexedEpisode

NO_POLICY = "a person (no policy)"
UNLABELLED = "unlabelled"
LEAST_WORK_S = 60.0  # less says nothing of how many labels an hour has


@dataclass(frozen=True)
class Corrections:
    """How often and how long people corrected one policy; seconds are means over its episodes."""

    policy: str
    episodes: int
    corrected: int
    seconds_each: float
    share_of_time: float


@dataclass(frozen=True)
class Annotator:
    """One person's labels: in all, today, and the pace while they worked (none before a minute of work).

    ``decided`` are a reviewer's words (decisions and gold episodes); ``labels`` and the pace leave them out.
    """

    name: str
    labels: int
    today: int
    seconds_each: float | None
    decided: int = 0

    @property
    def per_hour(self) -> float | None:
        """Labels an hour at that pace."""
        return 3600 / self.seconds_each if self.seconds_each else None


@dataclass(frozen=True)
class Throughput:
    """Successes per robot hour of one policy in one iteration, with its 95 % interval."""

    iteration: int
    policy: str
    value: float
    low: float
    high: float


def outcome_counts(
    episodes: Iterable[IndexedEpisode], outcomes: Mapping[str, str], group: Callable[[IndexedEpisode], str]
) -> list[dict[str, Any]]:
    """Episodes by group and outcome: rows of group, outcome, episodes. ``outcomes`` is by episode id."""
    counts: Counter[tuple[str, str]] = Counter()
    for item in episodes:
        counts[group(item), outcomes.get(item.entry.id, UNLABELLED)] += 1
    return [
        {"group": name, "outcome": outcome, "episodes": number}
        for (name, outcome), number in sorted(counts.items())
    ]


def task_of(item: IndexedEpisode) -> str:
    """What the robot was to do."""
    return item.entry.info.task


def policy_of(item: IndexedEpisode) -> str:
    """The policy that drove, by its checkpoint's name."""
    name = item.entry.info.policy_checkpoint
    return NO_POLICY if not name else short_name(name)


def short_name(name: str) -> str:
    """A name in which long hexadecimal digests are cut to eight signs: enough to tell them apart."""
    return re.sub(r"[0-9a-f]{12,}", lambda digest: digest.group()[:8], name)


def day_of(item: IndexedEpisode) -> str:
    """The day of the recording, as in its own clock."""
    return item.entry.info.created[:10]


def corrections(episodes: Iterable[IndexedEpisode]) -> list[Corrections]:
    """How much people corrected each policy; teleoperation has nothing to correct."""
    by_policy: dict[str, list[IndexedEpisode]] = defaultdict(list)
    for item in episodes:
        if item.sources is not None and item.driver in {"policy", "corrected"}:
            by_policy[policy_of(item)].append(item)
    found = []
    for policy, items in sorted(by_policy.items()):
        seconds = [item.entry.length / item.entry.info.rate_hz for item in items]
        corrected = [
            item.sources[Source.INTERVENTION] / item.entry.info.rate_hz
            for item in items
            if item.sources is not None
        ]
        found.append(
            Corrections(
                policy,
                len(items),
                sum(value > 0 for value in corrected),
                sum(corrected) / len(items),
                sum(corrected) / max(sum(seconds), 1e-9),
            )
        )
    return found


def annotators(events: Iterable[LabelEvent], now: datetime | None = None) -> list[Annotator]:
    """How much each person labelled, by the number of their labels. What was taken back does not count."""
    given = [event for event in events if event.undoes is None]
    undone = {event.undoes for event in events if event.undoes is not None}
    today = (now or datetime.now(UTC)).date().isoformat()
    times: dict[str, list[datetime]] = defaultdict(list)
    decided: Counter[str] = Counter()
    for event in given:
        if event.event_id in undone:
            continue
        if event.role not in OWN_ANSWERS:
            decided[event.annotator] += 1
            times[event.annotator] += []
        else:
            times[event.annotator].append(datetime.fromisoformat(event.created_at))
    found = []
    for name, stamps in times.items():
        stamps.sort()
        gaps = [(b - a).total_seconds() for a, b in pairwise(stamps)]
        working = [gap for gap in gaps if 0 < gap < PAUSE_S]
        pace = median(working) if sum(working) >= LEAST_WORK_S else None
        same_day = sum(stamp.date().isoformat() == today for stamp in stamps)
        found.append(Annotator(name, len(stamps), same_day, pace, decided[name]))
    return sorted(found, key=lambda person: (-person.labels, person.name))


def throughputs(ledger: Path) -> list[Throughput]:
    """Successes per hour of every policy that an iteration evaluated; empty where there is no ledger.

    Opened read-only: the ledger is the loop's own. What it says in another form is left out.
    """
    if not ledger.is_file():
        return []
    try:
        with closing(
            sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
        ) as database:
            rows = database.execute("SELECT n, summary FROM iterations ORDER BY n").fetchall()
    except sqlite3.Error:
        return []
    found = []
    for iteration, text in rows:
        for policy, numbers in _performances(text).items():
            try:
                estimate = numbers["successes_per_hour"]
                value, low, high = (float(estimate[name]) for name in ("value", "low", "high"))
            except (KeyError, TypeError, ValueError):
                continue
            if all(math.isfinite(number) for number in (value, low, high)):
                found.append(Throughput(int(iteration), short_name(str(policy)), value, low, high))
    return found


def _performances(text: object) -> dict[str, Any]:
    try:
        found = json.loads(str(text))["performances"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
