"""The plan of an evaluation on the robot: its order, its file, and what counts as another plan."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from workflows.policy_evaluation_plan import (
    EvaluationPlan,
    PlannedPolicy,
    first_policies,
    plan_path,
    read_plan,
)

OLD = PlannedPolicy("champion", "fine_tune/0123", "0" * 64, "positive", "/runs/fine_tune/0123/checkpoint")
NEW = PlannedPolicy("/new", "/new", "1" * 64, "positive", "/new")
PLAN = EvaluationPlan(
    "monday",
    "moving_arm",
    (OLD, NEW),
    5,
    ("pick up the red cube", "open the drawer"),
    30.0,
    20.0,
    None,
    "ab",
    7,
)

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, starts=st.integers(1, 60))
def test_each_start_has_both_policies_once_and_each_is_first_at_half(seed: int, starts: int) -> None:
    plan = replace(PLAN, seed=seed, starts=starts)
    assert plan.attempts == replace(PLAN, seed=seed, starts=starts).attempts, "the same plan, continued"
    assert len(plan.attempts) == 2 * starts
    for start in range(1, starts + 1):
        two = plan.attempts[2 * start - 2 : 2 * start]
        assert {attempt.policy for attempt in two} == {0, 1}
        assert [(attempt.start, attempt.place) for attempt in two] == [(start, 1), (start, 2)]
    firsts = Counter(attempt.policy for attempt in plan.attempts if attempt.place == 1)
    assert abs(firsts[0] - firsts[1]) == starts % 2
    alone = replace(plan, policies=(OLD,))
    assert [(a.start, a.policy, a.place) for a in alone.attempts] == [(s, 0, 1) for s in range(1, starts + 1)]


def test_nobody_can_tell_the_order_from_the_number_of_a_start() -> None:
    """Over many seeds each start begins with either policy half of the time, an odd one out too."""
    for starts in (4, 5):
        orders = [first_policies(seed, starts) for seed in range(800)]
        for start in range(starts):
            share = sum(order[start] for order in orders) / len(orders)
            assert abs(share - 0.5) < 0.08, "4.5 standard deviations"
    # Every order of four that is balanced comes up, equally often.
    counts = Counter(tuple(first_policies(seed, 4)) for seed in range(1200))
    assert len(counts) == 6 and min(counts.values()) > 130


def test_the_order_is_the_same_for_ever() -> None:
    assert first_policies(7, 12) == [0, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 1]


@settings(max_examples=30)
@given(seed=seeds, starts=st.integers(1, 10_000), guidance=st.none() | st.floats(0, 5), one=st.booleans())
def test_a_plan_that_was_kept_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, seed: int, starts: int, guidance: float | None, one: bool
) -> None:
    workspace = Workspace(tmp_path_factory.getbasetemp() / "plans")
    plan = replace(
        PLAN, seed=seed, starts=starts, guidance=guidance, policies=PLAN.policies[: 1 if one else 2]
    )
    plan.save(workspace)
    assert read_plan(workspace, "monday") == plan


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"starts": 6}, "starts 5, not 6"),
        ({"tasks": ("open the drawer",)}, "tasks pick up the red cube, open the drawer, not open the drawer"),
        ({"max_seconds": 31.0}, "max seconds 30, not 31"),
        ({"robot": "kinova_gen3"}, "robot moving_arm, not kinova_gen3"),
        ({"policies": (OLD,)}, "2 policies, not 1"),
        ({"policies": (NEW, OLD)}, "policy A champion of other content than /new now"),
        ({"policies": (OLD, replace(NEW, asked_for=None))}, "policy B asked for positive, not nothing"),
        ({"guidance": 1.5}, "guidance none, not 1.5"),
        ({"policies": (replace(OLD, given="base"), NEW), "id": "cd", "seed": 8}, None),
    ],
)
def test_another_plan_is_told_by_what_it_does(changes: dict[str, object], words: str | None) -> None:
    assert PLAN.differs_in(replace(PLAN, **changes)) == words  # type: ignore[arg-type]  # of many fields


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 2}', '{"version": 1, "policies": 3}'])
def test_a_damaged_plan_is_said_to_be_damaged(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path)
    path = plan_path(workspace, "monday")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(InputError, match="is damaged"):
        read_plan(workspace, "monday")
    path.unlink()
    assert read_plan(workspace, "monday") is None
    PLAN.save(workspace)
    path.rename(plan_path(workspace, "tuesday"))
    with pytest.raises(InputError, match="it is named monday"):
        read_plan(workspace, "tuesday")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_seconds", value) for value in (None, "60", -1, 0, 1e400, True)),
        *(("rate_hz", value) for value in (None, "20", 0, True)),
        *(("guidance", value) for value in ("x", -1, 1e400)),
        *(("seed", value) for value in (-5, 2**32, True, 1.0)),
        *(("starts", value) for value in (True, 2.0, 0, None)),
        *(("tasks", value) for value in ("open the drawer", [1], None)),
        *(("policies", value) for value in ([1], "ab", [])),
        ("id", 5),
        ("robot", 7),
        ("surplus", 1),
        *(("policies.0.given", value) for value in (5, None)),
        ("policies.0.asked_for", "banana"),
        ("policies.0.digest", 3),
        ("policies.0.recorded", None),
        ("policies.0.folder", None),
    ],
)
def test_a_plan_that_was_edited_by_hand_is_refused(tmp_path: Path, field: str, value: object) -> None:
    workspace = Workspace(tmp_path)
    PLAN.save(workspace)
    path = plan_path(workspace, "monday")
    document = json.loads(path.read_text())
    *_, name = field.split(".")
    (document["policies"][0] if "." in field else document)[name] = value
    path.write_text(json.dumps(document))
    with pytest.raises(InputError):
        read_plan(workspace, "monday")


def test_what_cannot_be_planned_is_refused() -> None:
    for changes in ({"starts": 0}, {"tasks": ()}, {"policies": ()}):
        with pytest.raises(InputError):
            replace(PLAN, **changes)
    for name in ("../x", "", ".hidden", "a/b"):
        with pytest.raises(InputError, match="--name"):
            plan_path(Workspace(Path()), name)
