"""A month of schedules: restarts, missed ticks, overlaps and changed zones give exactly the right runs."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from tests.workflows.expected_month import expected
from tests.workflows.scheduled_month import START_OF_AUTUMN, START_OF_SPRING, World, make_month


@pytest.mark.parametrize(("start", "seed"), [(START_OF_SPRING, 0), (START_OF_AUTUMN, 1)])
def test_a_month_gives_exactly_the_right_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: datetime, seed: int
) -> None:
    # A month of writes to the disk itself would take minutes.
    monkeypatch.setattr("workflows.schedule_database._SYNCHRONOUS", "OFF")
    month = make_month(start, seed)
    world = World(month, Workspace(tmp_path))
    world.live()
    # What was begun by the last tick ends in this time, and so does what that tick begins after it.
    last = max(month.ticks) + timedelta(days=4)
    outcomes = {key: one for key, one in world.outcomes().items() if one[0] != "merged"}
    right = {key: one for key, one in expected(month, last).items() if one[0] != "merged into the next"}
    assert {
        key: (outcomes.get(key), right.get(key))
        for key in outcomes | right
        if outcomes.get(key) != right.get(key)
    } == {}
    # Everything has come to its end, once, and was told of once.
    kept = [key for key, (word, _) in outcomes.items() if word == "kept"]
    assert world.ended == Counter(kept)
    # Of what ended after the last tick, the next one would tell.
    assert world.notices["kept"] == len(kept) - len(world.store.unnotified())
    # It was a month in which things happened.
    words = Counter(word for word, _ in outcomes.values())
    assert {"kept", "refused", "skipped", "condition not met"} <= set(words), words
    assert sum(missed for _, missed in outcomes.values()) > 0
    assert any(run.attempts > 1 for run in world.store.history())
