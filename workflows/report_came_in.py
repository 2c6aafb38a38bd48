"""The report's section on what came in since the iteration before: episodes, labels, corrections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.iteration_records import DataRecord, Incoming, RolloutRecord
from pipeline.label_snapshot import Snapshot, load_snapshot
from workflows.iteration_data import data_record, frame_facts, new_rows, rollout_record
from workflows.report_words import number, percent

MOST_ROWS = 12
"""Days, tasks or operators that a table names; the others are added up."""

_GROUPS: dict[str, Callable[[Incoming], str]] = {
    "How recorded": lambda group: group.kind,
    "Task": lambda group: group.task,
    "Operator": lambda group: group.operator,
    "Day": lambda group: group.day,
}


@dataclass(frozen=True)
class CameIn:
    """What an iteration learned from, and what of it is new; ``first``: there was no iteration before.

    ``labels`` is the name of the file of frozen labels.
    """

    data: DataRecord
    rollouts: RolloutRecord | None
    first: bool
    labels: str

    @property
    def new_episodes(self) -> int | None:
        """How many episodes are new; ``None`` where that cannot be told."""
        incoming = self.data.incoming
        return None if incoming is None else sum(group.episodes for group in incoming)


@dataclass(frozen=True)
class GroupTable:
    """New episodes by one attribute: rows of its value, episodes, share of the largest row (0 to 1)."""

    title: str
    rows: tuple[tuple[str, int, float], ...]


def came_in(snapshot: Path, before: Path | None, advantages: Path, *, first: bool) -> CameIn:
    """From the iteration's frozen labels and those of the one before; its frames say who drove.

    Without ``before``, and not the ``first``, what is new cannot be told.
    """
    frozen, sources = load_snapshot(snapshot), frame_facts(advantages).sources
    earlier: Snapshot | None = load_snapshot(before) if before is not None else None
    known = first or earlier is not None
    rollouts = rollout_record(new_rows(frozen, earlier), sources) if known else None
    return CameIn(data_record(frozen, earlier, sources, known=known), rollouts, first, snapshot.name)


def group_tables(found: CameIn) -> list[GroupTable]:
    """New episodes by how they were recorded, task, operator and day."""
    return [GroupTable(title, tuple(_rows(found, of))) for title, of in _GROUPS.items()]


def _rows(found: CameIn, of: Callable[[Incoming], str]) -> Iterator[tuple[str, int, float]]:
    counts: Counter[str] = Counter()
    for group in found.data.incoming or ():
        counts[of(group)] += group.episodes
    ordered = counts.most_common()
    shown, rest = ordered[:MOST_ROWS], ordered[MOST_ROWS:]
    if rest:
        shown.append((f"{len(rest)} others", sum(n for _, n in rest)))
    largest = max((n for _, n in shown), default=1)
    for name, n in shown:
        yield name, n, n / largest


def label_lines(found: CameIn) -> list[str]:
    """Who agrees and who differs, in sentences."""
    data = found.data
    lines = []
    if data.new_labels is not None and not found.first:
        verb = "is" if data.new_labels == 1 else "are"
        lines.append(f"{counted(data.new_labels, 'label')} {verb} new or changed since the iteration before.")
    if data.confirmed or data.disputed:
        lines.append(
            f"Two people or more agree on {counted(data.confirmed, 'episode')} and differ on "
            f"{number(data.disputed)}; disputed ones are left out until a reviewer has decided."
        )
    else:
        lines.append("No episode has been labelled by two people yet, so nothing is known of agreement.")
    return lines


def rollout_lines(found: CameIn) -> list[str]:
    """How much people had to help the policies, in sentences."""
    rollouts = found.rollouts
    if rollouts is None:
        return []
    spared = number(rollouts.episodes - rollouts.corrected)
    return [
        f"People took over {counted(rollouts.interventions, 'time')} in "
        f"{counted(rollouts.episodes, 'new rollout')} ({number(rollouts.per_episode, 2)} a rollout) and "
        f"drove in {percent(rollouts.share_of_frames)} of their frames; {spared} needed no correction."
    ]


def counted(count: int, what: str) -> str:
    """``1 episode``, ``2 episodes``."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"
