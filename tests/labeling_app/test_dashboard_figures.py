"""The dashboard's numbers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labeling_app.dashboard_figures import (
    NO_POLICY,
    annotators,
    corrections,
    day_of,
    outcome_counts,
    policy_of,
    short_name,
    throughputs,
)
from labeling_app.queue_sidebar import seconds_per_label, time_left
from pipeline.episode import Source
from pipeline.labels import LabelEvent, LabelStore
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from workflows.ledger import Ledger

P, H = Source.POLICY, Source.INTERVENTION


def test_outcomes_and_corrections_by_policy_and_day(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    make_episode()
    make_episode(sources=[P] * 10)
    make_episode(sources=[P] * 5 + [H] * 5, created="2025-02-03T10:00:00+00:00")
    items = workspace.index()
    outcomes = {"episode-001": "success", "episode-002": "failure"}
    assert outcome_counts(items, outcomes, policy_of) == [
        {"group": NO_POLICY, "outcome": "unlabelled", "episodes": 1},
        {"group": "checkpoint-of-a-test", "outcome": "failure", "episodes": 1},
        {"group": "checkpoint-of-a-test", "outcome": "success", "episodes": 1},
    ]
    assert {row["group"] for row in outcome_counts(items, {}, day_of)} == {"2025-01-01", "2025-02-03"}
    (found,) = corrections(items)
    assert (found.policy, found.episodes, found.corrected) == ("checkpoint-of-a-test", 2, 1)
    assert (found.seconds_each, found.share_of_time) == pytest.approx((0.25, 0.25))


def events(workspace: Workspace, seconds: list[float]) -> list[LabelEvent]:
    """Labels given at these times, as the store tells them."""
    now = [0.0]
    store = LabelStore(workspace.labels_path, clock=lambda: now[0])
    store.sync((f"e{number}", "task") for number in range(len(seconds)))
    for number, second in enumerate(seconds):
        now[0] = second
        store.set(f"e{number}", "success", "Ana")
    return store.events()


def test_pace_leaves_pauses_and_what_was_taken_back_out(workspace: Workspace) -> None:
    given = events(workspace, [100, 120, 140, 4000, 4020])
    (ana,) = annotators(given, datetime.fromtimestamp(5000, UTC))
    assert (ana.labels, ana.today, ana.seconds_each, ana.per_hour) == (5, 5, 20.0, 180.0)
    (ana,) = annotators(given[:3])
    assert ana.per_hour is None  # 40 s of work say nothing of an hour
    LabelStore(workspace.labels_path).undo("Ana")
    (ana,) = annotators(LabelStore(workspace.labels_path).events())
    assert (ana.labels, ana.today) == (4, 0)


def test_a_reviewers_words_count_apart(workspace: Workspace) -> None:
    store = LabelStore(workspace.labels_path)
    store.sync([("e0", "task")])
    store.set_gold("e0", "success", "Rita")
    (rita,) = annotators(store.events())
    assert (rita.labels, rita.decided, rita.per_hour) == (0, 1, None)
    assert short_name("policy-0123456789abcdef0123") == "policy-01234567"


def test_the_time_left_goes_by_ones_own_pace(workspace: Workspace) -> None:
    own = events(workspace, [100, 130, 160, 190, 9000])[::-1]
    assert seconds_per_label(own) == 30.0
    assert seconds_per_label(own[:3]) is None
    assert time_left(30, own) == "30 to go: about 15 min at your pace"
    assert time_left(30, []) == "30 to go"
    assert time_left(1000, own) == "1000 to go: about 8 h at your pace"
    assert time_left(0, own) == "Nothing is left for you."


def test_the_ledger_is_read_and_never_written(workspace: Workspace) -> None:
    assert throughputs(workspace.ledger_path) == []
    assert not workspace.ledger_path.exists()
    estimate = {"value": 100.0, "low": 80.0, "high": 120.0}
    summary = {"performances": {"candidate": {"successes_per_hour": estimate}, "odd": {"success_rate": 1}}}
    ledger = Ledger(workspace)
    ledger.record_iteration(1, "key1", summary)
    ledger.record_iteration(2, "key2", {"other": "form"})
    (found,) = throughputs(workspace.ledger_path)
    assert (found.iteration, found.policy, found.value) == (1, "candidate", 100.0)


def test_a_ledger_of_another_form_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    path.write_bytes(b"no database")
    assert throughputs(path) == []
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE other (x)")
        database.commit()
    assert throughputs(path) == []
