"""``reports/iterations.json``: whole round trips, named damage, and what follows from the records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.iteration_file import iterations_path, read_iterations, to_json, write_iterations
from pipeline.iteration_records import (
    ChampionRecord,
    DataRecord,
    Incoming,
    Interval,
    IterationRecord,
    IterationsDocument,
    PolicyRecord,
    Positives,
    RolloutRecord,
    ValuesRecord,
    WatchedRollout,
)


def policy(role: str, rate: float, checkpoint: str) -> PolicyRecord:
    """An evaluation of 50 attempts."""
    interval = Interval(rate, rate - 0.1, rate + 0.1)
    return PolicyRecord(role, role, 50, int(50 * rate), interval, interval, checkpoint, 0.25)


def record(n: int, promoted: bool, *others: PolicyRecord) -> IterationRecord:
    """An iteration with everything that there may be."""
    return IterationRecord(
        n,
        f"2026-03-0{n}T10:00:00+00:00",
        f"fine_tune_recap/{n}",
        "base",
        promoted,
        "why <b>not</b>",
        "a rule",
        ({"starts": 40, "p": 0.2, "verdict": "go on", "final": False, "chance": None},),
        ({"name": "task", "worse": -1.5},),
        True,
        f"iteration-{n}.html",
        (
            policy("base", 0.4, "train_base/0"),
            policy("candidate", 0.4 + n / 10, f"fine_tune_recap/{n}"),
            *others,
        ),
        DataRecord(
            {"rollout": 2},
            {"success": 1, "unlabelled": 1},
            {"Ana": 1},
            1,
            0,
            (Incoming("rollout", "t", "o", "d", 2),),
            1,
            "gen3",
        ),
        RolloutRecord(2, 1, 3, 0.2, (WatchedRollout("r-1", "t", 3),)),
        ValuesRecord(0.8, None, 0.05),
        {"t": 0.1},
        {"policy": Positives(100, 30)},
        {"values": ("advantages/1",)},
        (),
        "d1",
    )


def history() -> IterationsDocument:
    """Two iterations, the first promoted; a rollback to the base after the second; turn 3 refused."""
    champion = policy("champion", 0.5, "fine_tune_recap/1")
    return IterationsDocument(
        "gen3",
        (
            ChampionRecord("promotion", 0, "train_base/0", "first", "2026-03-01"),
            ChampionRecord("promotion", 1, "fine_tune_recap/1", "better", "2026-03-01", 1),
            ChampionRecord("rollback", 0, "train_base/0", "drops cubes", "2026-03-03", 2),
        ),
        (record(1, True), record(2, False, champion)),
        {3: "values-3.html"},
    )


def test_what_is_written_is_read_and_equal_histories_make_equal_bytes(tmp_path: Path) -> None:
    assert read_iterations(tmp_path / "reports") is None
    path = write_iterations(history(), tmp_path / "reports")
    assert path == iterations_path(tmp_path / "reports")
    assert read_iterations(tmp_path / "reports") == history()
    assert path.read_bytes() == to_json(history())
    assert json.loads(path.read_bytes())["version"] == 1
    assert [found.name for found in path.parent.iterdir()] == ["iterations.json"]


def test_fields_of_a_later_release_are_passed_over(tmp_path: Path) -> None:
    path = write_iterations(history(), tmp_path)
    document = json.loads(path.read_bytes())
    document["colour"] = document["iterations"][0]["colour"] = "green"
    path.write_text(json.dumps(document))
    assert read_iterations(tmp_path) == history()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "damaged"),
        ("[]", "its version"),
        ('{"version": 1}', "no list of iterations"),
        ('{"version": 2, "iterations": []}', "version 2"),
        ('{"version": 1, "iterations": [], "champions": [{"kind": 3}]}', "damaged"),
    ],
)
def test_a_file_that_is_damaged_as_a_whole_says_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    iterations_path(tmp_path).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_iterations(tmp_path)
    assert "recap report --all" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["text", "infinite", "no object"])
def test_one_damaged_iteration_is_named_and_the_others_are_whole(tmp_path: Path, damage: str) -> None:
    path = write_iterations(history(), tmp_path)
    document = json.loads(path.read_bytes())
    if damage == "text":
        document["iterations"][1]["policies"][0]["attempts"] = "many"
    elif damage == "infinite":
        document["iterations"][1]["thresholds"]["t"] = float("inf")
    else:
        document["iterations"][1] = "lost"
    path.write_text(json.dumps(document))
    found = read_iterations(tmp_path)
    assert found is not None
    assert found.iterations[0] == history().iterations[0]
    broken = found.iterations[1]
    assert broken.n == 2 and broken.policies == () and broken.promoted is None
    assert "damaged" in broken.problems[0] and "recap report --all" in broken.problems[0]


def test_numbers_that_are_none_are_never_written(tmp_path: Path) -> None:
    bad = replace(history(), iterations=(replace(record(1, True), thresholds={"t": float("nan")}),))
    with pytest.raises(ValueError, match="JSON"):
        write_iterations(bad, tmp_path)
    assert not iterations_path(tmp_path).exists()


def test_the_history_is_newest_first_and_says_who_drives() -> None:
    found = history()
    assert [(entry.kind, entry.n) for entry in found.history()] == [
        ("refused", 3),
        ("rollback", 2),
        ("iteration", 2),
        ("iteration", 1),
    ]
    # A turn that was refused before the iteration of its number was made.
    refused = replace(found, refused={2: "values-2.html"})
    assert [(e.kind, e.n) for e in refused.history()][1:] == [
        ("iteration", 2),
        ("refused", 2),
        ("iteration", 1),
    ]
    standing = found.standing
    assert standing is not None and standing.iteration == 2 and standing.champion == standing.base
    before = replace(found, champions=found.champions[:2]).standing
    assert before is not None and (before.champion.role, before.champion.success_rate.value) == (
        "champion",
        0.5,
    )
    assert replace(found, champions=()).standing is None
    after = [one.champion_after for one in found.iterations]
    assert [one.role if one else None for one in after] == ["candidate", "champion"]
