"""Which episodes a label would help most: by the formula, from real scores, and fast the second time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from labeling_app.helpfulness import UNKNOWN, ValueEnd, newest_run, priorities, read_ends, refresh_priorities
from pipeline.frame_cache import FrameCache, publish_scores
from pipeline.labels import Label, LabelStore, QueueFilter
from pipeline.site_config import LabelsSection
from pipeline.workspace import Workspace

A, B = "pick up the red cube", "open the drawer"


def label(episode: str, outcome: str) -> Label:
    """Ana's label."""
    return Label(episode, outcome, "ana", "", "", 1, None)


def test_the_formula() -> None:
    """Task a: failures end at −0.8, successes at 0; so −0.4 is the middle."""
    values = {"s1": 0.0, "s2": 0.0, "s3": -0.6, "f1": -0.8, "f2": -0.8, "f3": -0.2, "x": -0.4}
    values |= {"u1": -0.4, "u2": -0.1, "u3": -2.0, "u4": -0.1}
    ends = {episode: ValueEnd(value, 0.0) for episode, value in values.items()}
    ends["u4"] = ValueEnd(-0.1, 0.3)
    labels = {
        e: label(e, {"s": "success", "f": "failure", "x": "exclude"}[e[0]]) for e in values if e[0] != "u"
    }
    tasks = dict.fromkeys([*values, "u5"], A) | {"b1": B}
    labels["b1"] = label("b1", "success")
    ends["b1"] = ValueEnd(-0.8, 0.0)
    found = priorities(ends, labels, ["u1", "u2", "u3", "u4", "u5"], tasks)
    expected = {"s1": 0, "s2": 0, "s3": 1.5, "f1": 0, "f2": 0, "f3": 1.5, "x": 0, "b1": 2.0}
    expected |= {"u1": 0.99, "u2": 0.2475, "u3": 0, "u4": 0.7425, "u5": UNKNOWN}
    assert found == pytest.approx(expected)


def test_nothing_is_known_without_both_outcomes() -> None:
    ends = {"e0": ValueEnd(-0.5, 0.0), "e1": ValueEnd(0.0, 0.0)}
    tasks = {"e0": A, "e1": A}
    assert priorities(ends, {"e0": label("e0", "success")}, ["e1"], tasks) == {"e0": 0.0, "e1": UNKNOWN}
    upside_down = {"e0": label("e0", "success"), "e1": label("e1", "failure")}
    assert priorities(ends, upside_down, ["e2"], {**tasks, "e2": A}) == {"e0": 0.0, "e1": 0.0, "e2": UNKNOWN}
    assert priorities({}, {}, ["e0"], tasks) == {"e0": UNKNOWN}


def publish(cache: FrameCache, run: str, ends: dict[str, float]) -> None:
    """Scores of 20 frames that rise or fall to that value over their first half."""
    for episode, end in ends.items():
        values = np.concatenate([np.linspace(-0.5, end, 10), np.full(10, end)]).astype(np.float32)
        publish_scores(cache, run, episode, {"value": values, "advantage": np.zeros(20, np.float32)})


def test_the_queue_follows_the_newest_scores(workspace: Workspace) -> None:
    store = LabelStore(workspace.labels_path, rules=LabelsSection(double_share=0.0))
    store.sync([(f"e{i}", A) for i in range(6)])
    for episode, outcome in {"e0": "success", "e1": "failure", "e2": "success"}.items():
        store.set(episode, outcome, "ana")
    assert refresh_priorities(workspace, store) == 0, "no scores yet"
    cache = FrameCache(workspace.cache, 16)
    publish(cache, "old", dict.fromkeys([f"e{i}" for i in range(6)], -0.1))
    os.utime(workspace.cache / "scores" / "old", (1, 1))
    publish(cache, "new", {"e0": 0.0, "e1": -0.8, "e2": -0.8, "e3": -0.7, "e4": -0.4, "gone": 0.0})
    assert refresh_priorities(workspace, store) == 5
    helpful = QueueFilter(order="helpful")
    order = []
    while (lease := store.claim("bo", wanted=helpful)) is not None:
        order.append(lease.episode_id)
    # The median of the two successes is −0.4: e2 is contradicted; e4 looks like a success.
    assert order == ["e2", "e5", "e3", "e4"]


def test_only_new_scores_are_read_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FrameCache(workspace.cache, 16)
    publish(cache, "run", {"e0": -0.25, "e1": -0.5})
    folder = workspace.cache / "scores" / "run"
    written = folder.stat().st_mtime_ns
    assert {e: end.value for e, end in read_ends(workspace.cache, "run").items()} == {"e0": -0.25, "e1": -0.5}
    assert folder.stat().st_mtime_ns == written, "what was remembered does not make the run newer"
    read: list[str] = []

    def noted(path: Path) -> ValueEnd:
        read.append(path.name)
        return ValueEnd(-1.0, 0.0)

    monkeypatch.setattr("labeling_app.helpfulness._read_end", noted)
    assert read_ends(workspace.cache, "run")["e1"].value == -0.5
    publish(cache, "run", {"e1": -0.5, "e2": -0.1})
    assert set(read_ends(workspace.cache, "run")) == {"e0", "e1", "e2"}
    assert sorted(read) == ["e1", "e2"]
    (folder / ".ends.json").write_text("[]")
    assert len(read_ends(workspace.cache, "run")) == 3


def test_damaged_scores_are_left_out(workspace: Workspace) -> None:
    cache = FrameCache(workspace.cache, 16)
    publish(cache, "run", {"e0": -0.25, "e1": -0.5})
    (cache.scores_folder("run", "e1") / "value" / "zarr.json").write_text("{")
    assert set(read_ends(workspace.cache, "run")) == {"e0"}
    assert newest_run(workspace.root / "nowhere") is None


def test_the_models_disagreement_is_read_and_values_alone_serve_where_there_is_nothing_else(
    workspace: Workspace,
) -> None:
    cache = FrameCache(workspace.cache, 16)
    spread = np.concatenate([np.zeros(15), np.full(5, 0.25)]).astype(np.float32)
    publish_scores(
        cache, "values-0123", "e0", {"value": np.zeros(20, np.float32) - 0.5, "value_spread": spread}
    )
    assert newest_run(workspace.cache) == "values-0123"
    assert read_ends(workspace.cache, "values-0123") == {"e0": ValueEnd(-0.5, 0.25)}
    publish(cache, "run", {"e0": -0.25})
    os.utime(workspace.cache / "scores" / "run", (1, 1))
    assert newest_run(workspace.cache) == "run", "values alone may be in the making"
