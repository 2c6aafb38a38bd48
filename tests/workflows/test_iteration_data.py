"""What came in with an iteration, against slow counts written from the definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.episode import Source
from pipeline.label_snapshot import Snapshot, SnapshotRow
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from workflows.iteration_data import EpisodeSources, data_record, frame_facts, new_rows, rollout_record

FRAME = st.tuples(st.sampled_from([int(s) for s in Source]), st.sampled_from([NONE, NEGATIVE, POSITIVE]))


def row(name: str, **changes: object) -> SnapshotRow:
    """A rollout that Ana labelled a success."""
    values = {
        "episode_id": name,
        "task": "t",
        "outcome": "success",
        "annotator": "Ana",
        "operator": "o",
        "operator_mark": None,
        "robot": "gen3",
        "policy_checkpoint": "p/1",
        "created": "2026-03-01T10:00:00.000Z",
        "length": 10,
        "truncated": False,
        "fingerprint": name,
        "opinions": 1,
    }
    return SnapshotRow(**{**values, **changes})  # type: ignore[arg-type]  # fields by name


def snapshot(*rows: SnapshotRow, disputed: int = 0) -> Snapshot:
    return Snapshot(Path("labels.parquet"), "0" * 64, rows, disputed)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.lists(FRAME, min_size=1, max_size=8), max_size=5))
def test_sources_interventions_and_marks_are_counted(
    tmp_path: Path, episodes: list[list[tuple[int, int]]]
) -> None:
    ids = [f"e{k}" for k in range(len(episodes))]
    flat = [(k, *frame) for k, frames in enumerate(episodes) for frame in frames]
    np.savez(
        tmp_path / "advantages.npz",
        episode=np.array([f[0] for f in flat], int),
        source=np.array([f[1] for f in flat], np.int8),
        indicator=np.array([f[2] for f in flat], np.int8),
        episode_ids=np.array(ids, str),
    )
    found = frame_facts(tmp_path)
    for name, frames in zip(ids, episodes, strict=True):
        times, before = 0, None
        for source, _ in frames:
            times += source == Source.INTERVENTION and before != Source.INTERVENTION
            before = source
        corrected = sum(source == Source.INTERVENTION for source, _ in frames)
        assert found.sources[name] == EpisodeSources(len(frames), corrected, times)
    for kind in Source:
        marks = [mark for _, source, mark in flat if source == kind]
        if not marks:
            assert kind.name.lower() not in found.positives
            continue
        share = found.positives[kind.name.lower()]
        assert share.marked == sum(mark != NONE for mark in marks)
        assert share.positive == sum(mark == POSITIVE for mark in marks)


def test_what_is_new_is_told_from_the_labels_before() -> None:
    before = snapshot(row("a"), row("b", outcome=None, annotator=None, opinions=0))
    now = snapshot(
        row("a", annotator="Ana + Ben", opinions=2),
        row("b"),
        row("c", policy_checkpoint=None, operator="x", task="u"),
        row("d", outcome="failure", annotator="Ben"),
        row("e", outcome=None, annotator=None, opinions=0),
        disputed=3,
    )
    sources = {"d": EpisodeSources(10, 4, 2), "e": EpisodeSources(10, 0, 0)}
    found = data_record(now, before, sources)
    assert found.episodes == {"rollout": 3, "demonstration": 1, "corrected rollout": 1}
    assert found.outcomes == {"success": 3, "failure": 1, "unlabelled": 1}
    assert found.annotators == {"Ana": 3, "Ben": 2}
    assert (found.confirmed, found.disputed, found.robot) == (1, 3, "gen3")
    assert found.incoming is not None
    assert [(g.kind, g.task, g.operator, g.day, g.episodes) for g in found.incoming] == [
        ("corrected rollout", "t", "o", "2026-03-01", 1),
        ("demonstration", "u", "x", "2026-03-01", 1),
        ("rollout", "t", "o", "2026-03-01", 1),
    ]
    # "a" is confirmed by somebody else, "b", "c" and "d" have their first label.
    assert found.new_labels == 4
    rollouts = rollout_record(new_rows(now, before), sources)
    assert rollouts is not None
    assert (rollouts.episodes, rollouts.corrected, rollouts.interventions) == (2, 1, 2)
    assert rollouts.per_episode == 1.0 and rollouts.share_of_frames == 0.2
    assert [(one.episode, one.interventions) for one in rollouts.watched] == [("d", 2)]


def test_without_the_labels_before_nothing_is_called_new() -> None:
    found = data_record(snapshot(row("a")), None, {}, known=False)
    assert found.incoming is None and found.new_labels is None and found.episodes == {"rollout": 1}
    first = data_record(snapshot(row("a")), None, {})
    assert first.incoming is not None and first.incoming[0].episodes == 1 and first.new_labels == 1
    assert rollout_record([row("a", policy_checkpoint=None)], {"a": EpisodeSources(1, 0, 0)}) is None
