"""Conditions: their language, and what they count in a workspace with labels and iterations."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.label_snapshot import freeze
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from workflows.ledger import Ledger
from workflows.schedule_conditions import NAMES, measure, parse_condition

FACTS = dict.fromkeys(NAMES, 0.0)
number = st.integers(0, 5)
comparison = st.tuples(
    st.sampled_from(sorted(NAMES)), st.sampled_from([">=", ">", "<=", "<", "==", "!="]), number
)


@given(
    alternatives=st.lists(st.lists(comparison, min_size=1, max_size=3), min_size=1, max_size=3),
    facts=st.fixed_dictionaries(dict.fromkeys(NAMES, number)),
    space=st.sampled_from(["", " "]),
)
def test_a_condition_is_what_python_makes_of_it(
    alternatives: list[list[tuple[str, str, int]]], facts: dict[str, int], space: str
) -> None:
    text = " or ".join(
        " and ".join(f"{n}{space}{o}{space}{v}" for n, o, v in terms) for terms in alternatives
    )
    assert parse_condition(text).holds(facts) == eval(text, {}, dict(facts))


def test_no_condition_always_holds() -> None:
    assert parse_condition(" ").holds({}) and parse_condition("").names == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "new_labeled_episodes>=50",
            "unknown name 'new_labeled_episodes' in the condition; known are new_labelled",
        ),
        ("episodes>=", "no comparison"),
        ("episodes = 5", "no comparison"),
        ("episodes>=5 and", "no comparison"),
        ("(episodes>=5)", "no comparison"),
        ("episodes>=-5", "no comparison"),
        ("episodes>=5; import os", "no comparison"),
        ("__import__('os').system('x')", "no comparison"),
        ("5<=episodes<=9", "no comparison"),
        ("episodes>=1e3", "no comparison"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_condition(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def everything(workspace: Workspace, now: datetime) -> dict[str, float]:
    return measure(workspace, parse_condition(" and ".join(f"{name}>=0" for name in NAMES)), now)


def test_an_empty_workspace_has_nothing(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    assert everything(Workspace(tmp_path), now) == {**FACTS, "hours_since_last_iteration": math.inf}
    assert list(tmp_path.iterdir()) == []


def test_what_is_new_is_what_the_last_iteration_did_not_use(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "lab").create()
    make = EpisodeMaker(workspace)
    first = [make().id for _ in range(4)]
    with LabelStore(workspace.labels_path) as store:
        store.sync((entry.id, entry.info.task) for entry in workspace.list_episodes())
        for name, outcome in zip(first[:3], ("success", "failure", "exclude"), strict=True):
            store.set(name, outcome, "ana")
        before = everything(workspace, datetime.now(UTC))
        assert (before["new_labelled_episodes"], before["new_episodes"]) == (2, 3)
        entries = [entry for entry in workspace.list_episodes() if entry.id != first[2]]
        snapshot = freeze(store, entries, workspace.root / "snapshots")
        # Given while the iteration runs, and so not used by it.
        store.set(first[3], "success", "ana")
        folder = workspace.steps / "recap" / "candidate1"
        folder.mkdir(parents=True)
        manifest = {"inputs": {"snapshot": f"external:{snapshot.digest}"}}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        Ledger(workspace).record_iteration(1, "candidate1", {"reason": "kept"})
        noted = datetime.fromisoformat(Ledger(workspace).iterations()[0].recorded)
        after = everything(workspace, noted + timedelta(hours=6))
        assert after == {
            "new_labelled_episodes": 1,
            "labelled_episodes": 3,
            "new_episodes": 0,
            "episodes": 4,
            "unlabelled_episodes": 0,
            "disputed_episodes": 0,
            "iterations": 1,
            "hours_since_last_iteration": 6,
        }
        # Another outcome is new, and so is an episode recorded since.
        store.set(first[1], "success", "ana")
        make()
        changed = everything(workspace, noted)
        assert (changed["new_labelled_episodes"], changed["new_episodes"]) == (2, 1)
        assert (changed["episodes"], changed["unlabelled_episodes"]) == (5, 1)


def test_without_its_snapshot_what_came_after_the_iteration_is_new(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "lab").create()
    make = EpisodeMaker(workspace)
    with LabelStore(workspace.labels_path) as store:
        ids = [make().id for _ in range(2)]
        store.sync((entry.id, entry.info.task) for entry in workspace.list_episodes())
        store.set(ids[0], "success", "ana")
        Ledger(workspace).record_iteration(1, "gone", {"reason": "kept"})
        time.sleep(0.05)  # files have the time of a clock that is a little behind
        with closing(sqlite3.connect(workspace.ledger_path)) as ledger, ledger:
            # Whole seconds are noted, which is too coarse for a test.
            ledger.execute("UPDATE iterations SET recorded = ?", (datetime.now(UTC).isoformat(),))
        facts = everything(workspace, datetime.now(UTC))
        assert (facts["new_labelled_episodes"], facts["new_episodes"]) == (0, 0)
        time.sleep(0.05)
        store.set(ids[1], "failure", "ana")
        make()
        facts = everything(workspace, datetime.now(UTC))
        assert (facts["new_labelled_episodes"], facts["new_episodes"]) == (1, 1)
