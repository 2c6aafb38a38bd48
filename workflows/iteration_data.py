"""What came in with an iteration, who labelled, how much people corrected: from frozen labels and frames.

Counts alone, from a label snapshot, the one before it, and the frames' sources that the advantages hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.episode import Source
from pipeline.iteration_records import (
    CORRECTED,
    DEMONSTRATION,
    MOST_WATCHED,
    ROLLOUT,
    DataRecord,
    Incoming,
    Positives,
    RolloutRecord,
    WatchedRollout,
)
from pipeline.label_snapshot import Snapshot, SnapshotRow
from pipeline.prompts import NONE, POSITIVE
from workflows.array_files import read_arrays
from workflows.step_files import ADVANTAGES_FILE

UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class EpisodeSources:
    """Who drove an episode: its frames, those in which a person corrected, and how often one took over."""

    frames: int
    corrected: int
    interventions: int


@dataclass(frozen=True)
class FrameFacts:
    """What the advantages' step says of all frames: sources by episode id, marks by source."""

    sources: dict[str, EpisodeSources]
    positives: dict[str, Positives]


def frame_facts(advantages: Path) -> FrameFacts:
    """Reads the three small columns of an advantages' step that these figures need.

    Raises ``InputError``, ``OSError`` or ``KeyError`` where they are damaged.
    """
    stored = read_arrays(advantages / ADVANTAGES_FILE)
    source, episode, indicator = stored["source"], stored["episode"], stored["indicator"]
    ids = [str(name) for name in stored["episode_ids"]]
    corrected = source == Source.INTERVENTION
    # A frame at which a person takes over: corrected, and the one before it not, or of another episode.
    first = np.r_[True, episode[1:] != episode[:-1]] if len(episode) else np.zeros(0, bool)
    taken_over = corrected & (first | ~np.r_[False, corrected[:-1]])
    counts = [
        np.bincount(episode, weights, minlength=len(ids)).astype(int)
        for weights in (np.ones(len(episode)), corrected.astype(float), taken_over.astype(float))
    ]
    sources = {name: EpisodeSources(*(int(column[i]) for column in counts)) for i, name in enumerate(ids)}
    positives = {}
    for kind in Source:
        marked = (source == kind) & (indicator != NONE)
        if (source == kind).any():
            won = int(np.count_nonzero(indicator[marked] == POSITIVE))
            positives[kind.name.lower()] = Positives(int(np.count_nonzero(marked)), won)
    return FrameFacts(sources, positives)


def kind_of(row: SnapshotRow, sources: Mapping[str, EpisodeSources]) -> str:
    """How an episode was recorded: demonstration, rollout, or rollout that a person corrected."""
    if row.policy_checkpoint is None:
        return DEMONSTRATION
    found = sources.get(row.episode_id)
    return CORRECTED if found is not None and found.interventions else ROLLOUT


def new_rows(snapshot: Snapshot, before: Snapshot | None) -> list[SnapshotRow]:
    """The episodes that the snapshot before did not have; all where there was none."""
    known = {row.episode_id for row in before.rows} if before is not None else set()
    return [row for row in snapshot.rows if row.episode_id not in known]


def data_record(
    snapshot: Snapshot, before: Snapshot | None, sources: Mapping[str, EpisodeSources], *, known: bool = True
) -> DataRecord:
    """Episodes and labels of an iteration.

    ``before`` is the snapshot of the iteration before it, ``None`` for the first; with ``known=False`` it
    cannot be read, and what is new cannot be told.
    """
    rows = snapshot.rows
    incoming = Counter(
        (kind_of(row, sources), row.task, row.operator, row.created[:10])
        for row in new_rows(snapshot, before)
    )
    said = {(row.episode_id, row.outcome, row.annotator) for row in before.rows} if before else set()
    labelled = [row for row in rows if row.outcome is not None]
    return DataRecord(
        episodes=dict(Counter(kind_of(row, sources) for row in rows)),
        outcomes=dict(Counter(row.outcome or UNLABELLED for row in rows)),
        annotators=annotator_counts(rows),
        confirmed=sum(row.opinions > 1 for row in rows),
        disputed=snapshot.disputed,
        incoming=tuple(Incoming(*group, n) for group, n in sorted(incoming.items())) if known else None,
        new_labels=sum((row.episode_id, row.outcome, row.annotator) not in said for row in labelled)
        if known
        else None,
        robot=rows[-1].robot if rows else "",
    )


def annotator_counts(rows: Sequence[SnapshotRow]) -> dict[str, int]:
    """How many episodes each person labelled, the most first; who agree count one each."""
    names = Counter(name for row in rows if row.annotator for name in row.annotator.split(" + "))
    return dict(names.most_common())


def rollout_record(
    rows: Sequence[SnapshotRow], sources: Mapping[str, EpisodeSources]
) -> RolloutRecord | None:
    """How much people corrected the rollouts among ``rows``; ``None`` where there are none."""
    found = [
        (row, sources[row.episode_id])
        for row in rows
        if row.policy_checkpoint is not None and row.episode_id in sources
    ]
    if not found:
        return None
    helped = sorted(
        ((row, driven) for row, driven in found if driven.interventions),
        key=lambda pair: (-pair[1].interventions, -pair[1].corrected, pair[0].episode_id),
    )
    return RolloutRecord(
        episodes=len(found),
        corrected=len(helped),
        interventions=sum(driven.interventions for _, driven in found),
        share_of_frames=sum(driven.corrected for _, driven in found)
        / max(1, sum(driven.frames for _, driven in found)),
        watched=tuple(
            WatchedRollout(row.episode_id, row.task, driven.interventions)
            for row, driven in helped[:MOST_WATCHED]
        ),
    )
