"""Folds: whole episodes, balanced, independent of order, and nothing for episodes without an outcome."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.value_model.synthetic import BLUE, RED, make_table
from value_model.folds import assign_folds, split_validation

kinds = st.lists(
    st.tuples(st.sampled_from([RED, BLUE]), st.sampled_from(["success", "failure", None])),
    min_size=8,
    max_size=40,
).filter(lambda chosen: sum(o is not None for _, o in chosen) >= 4)


@given(kinds, st.integers(2, 4), st.integers(0, 5))
def test_folds_are_balanced_within_every_task_and_outcome(
    chosen: list[tuple[str, str | None]], folds: int, seed: int
) -> None:
    table = make_table([3] * len(chosen), [t for t, _ in chosen])
    outcomes = {i: o for i, (_, o) in zip(table.episode_ids, chosen, strict=True)}
    of_episode = assign_folds(table, outcomes, folds, seed)
    assert set(of_episode) == {i for i, o in outcomes.items() if o is not None}
    for group in {(t, o) for t, o in chosen if o is not None}:
        members = [i for i, kind in zip(table.episode_ids, chosen, strict=True) if kind == group]
        sizes = Counter(dict.fromkeys(range(folds), 0))
        sizes.update(of_episode[i] for i in members)
        assert max(sizes.values()) - min(sizes.values()) <= 1


def test_the_order_of_episodes_does_not_matter_and_the_seed_does() -> None:
    table = make_table([3] * 20)
    outcomes = dict.fromkeys(table.episode_ids, "success")
    backwards = replace(table, episode_ids=table.episode_ids[::-1])
    assert assign_folds(table, outcomes, 2, 0) == assign_folds(backwards, outcomes, 2, 0)
    assert assign_folds(table, outcomes, 2, 0) != assign_folds(table, outcomes, 2, 1)


def test_validation_takes_its_share_from_the_given_episodes_alone() -> None:
    table = make_table([3] * 40)
    outcomes = {i: "success" if n % 2 else "failure" for n, i in enumerate(table.episode_ids)}
    allowed = table.episode_ids[:20]
    trained, held = split_validation(table, outcomes, allowed, 0.2, "salt")
    assert sorted(trained + held) == allowed
    assert len(held) == 4
    assert Counter(outcomes[i] for i in held) == {"success": 2, "failure": 2}


def test_too_few_episodes_are_not_split_and_share_zero_takes_none() -> None:
    table = make_table([3] * 10)
    outcomes = dict.fromkeys(table.episode_ids, "success")
    assert split_validation(table, outcomes, table.episode_ids[:3], 0.2, "salt")[1] == []
    assert split_validation(table, outcomes, table.episode_ids, 0.0, "salt")[1] == []


def test_fewer_labelled_episodes_than_folds_are_refused() -> None:
    table = make_table([3, 3, 3])
    with pytest.raises(InputError, match="label more episodes"):
        assign_folds(table, {"e000": "success"}, 2, 0)
    with pytest.raises(InputError, match="at least 2"):
        assign_folds(table, dict.fromkeys(table.episode_ids, "success"), 1, 0)
