"""Folds: whole episodes, balanced, independent of order, and nothing for episodes without an outcome."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.value_model.synthetic import BLUE, RED, SMALL, make_table
from value_model.baselines import TimeOnly
from value_model.folds import assign_folds, held_out_folds, split_validation

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


@given(kinds, st.lists(st.integers(0, 39), max_size=12), st.integers(2, 4), st.integers(0, 5))
def test_copies_change_no_fold_and_share_that_of_their_recording(
    chosen: list[tuple[str, str | None]], copied: list[int], folds: int, seed: int
) -> None:
    originals = [i % len(chosen) for i in copied]
    kinds_of_all = chosen + [chosen[i] for i in originals]
    table = make_table([3] * len(chosen), [t for t, _ in chosen])
    contents = [f"frames-{i}" for i in [*range(len(chosen)), *originals]]
    larger = make_table([3] * len(kinds_of_all), [t for t, _ in kinds_of_all], contents=contents)
    outcomes = {i: o for i, (_, o) in zip(larger.episode_ids, kinds_of_all, strict=True)}
    before = assign_folds(table, outcomes, folds, seed)
    after = assign_folds(larger, outcomes, folds, seed)
    assert {i: f for i, f in after.items() if i in set(table.episode_ids)} == before
    folds_of = held_out_folds(larger, after)
    for content in set(contents):
        (fold,) = {int(f) for f, c in zip(folds_of, contents, strict=True) if c == content}
        members = [i for i, c in zip(larger.episode_ids, contents, strict=True) if c == content]
        assert {after.get(i, -1) for i in members} == {fold}
    seen = sorted(after)
    trained, held = split_validation(larger, outcomes, seen, 0.3, "salt")
    assert sorted(trained + held) == seen
    content_of = dict(zip(larger.episode_ids, contents, strict=True))
    assert not {content_of[i] for i in trained} & {content_of[i] for i in held}


# Of eight episodes, in turn red and blue, two of each outcome under each task.
ASSIGNED = {"e005": 0, "e001": 1, "e003": 2, "e007": 0, "e002": 1, "e006": 2, "e004": 0, "e000": 1}
SPLIT = (["e001", "e005", "e003", "e006", "e002", "e004"], ["e007", "e000"])


def test_folds_of_episodes_without_copies_are_what_they_have_always_been() -> None:
    """Written down: models that were trained on other folds would have to be trained again."""
    table = make_table([3] * 8, [RED, BLUE] * 4)
    outcomes = dict(zip(table.episode_ids, ["success", "failure", "failure", "success"] * 2, strict=True))
    assert assign_folds(table, outcomes, 3, 0) == ASSIGNED
    assert split_validation(table, outcomes, table.episode_ids, 0.25, "salt") == SPLIT


def test_an_unlabelled_copy_belongs_to_the_fold_of_the_labelled_one() -> None:
    table = make_table([3] * 5, contents=["a", "b", "c", "d", "a"])
    outcomes = {"e000": "success", "e001": "success", "e002": "failure"}
    of_episode = assign_folds(table, outcomes, 3, 0)
    assert set(of_episode) == {"e000", "e001", "e002"}
    folds = held_out_folds(table, of_episode)
    assert folds[4] == folds[0] == of_episode["e000"] and folds[3] == -1


def test_copies_that_contradict_each_other_are_refused_unless_they_answer_different_questions() -> None:
    table = make_table([3] * 4, contents=["a", "b", "c", "b"])
    outcomes = {"e000": "success", "e001": "failure", "e002": "success", "e003": "success"}
    for use in (
        lambda: assign_folds(table, outcomes, 2, 0),
        lambda: TimeOnly().score(table, outcomes, SMALL),
    ):
        with pytest.raises(
            InputError, match=r"e001 and e003 are the same recording.*recap label set e003 ex"
        ):
            use()
    assert set(assign_folds(table, {**outcomes, "e003": None}, 2, 0)) == {"e000", "e001", "e002"}
    other = replace(table, tasks=[RED, RED, RED, BLUE])
    folds = assign_folds(other, outcomes, 2, 0)
    assert folds["e001"] == folds["e003"]
