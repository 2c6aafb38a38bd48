"""Kappa and alpha against published examples and a slow reference, and what the store feeds them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.label_agreement import Rated, cohens_kappa, krippendorffs_alpha, measure
from pipeline.label_types import OUTCOMES

ANSWERS = st.sampled_from(OUTCOMES)


def slow_kappa(answers: Sequence[tuple[str, str]]) -> float:
    """Cohen's kappa by drawing the second annotator's answer from every episode in turn."""
    agree = [first == second for first, second in answers]
    by_chance = [first == second for first, _ in answers for _, second in answers]
    observed, expected = sum(agree) / len(agree), sum(by_chance) / len(by_chance)
    return (observed - expected) / (1 - expected)


def slow_alpha(episodes: Sequence[Sequence[str]]) -> float:
    """Krippendorff's alpha from its definition: disagreement within episodes, and between any two answers."""
    units = [answers for answers in episodes if len(answers) > 1]
    n = sum(len(answers) for answers in units)
    within = (
        sum(sum(a != b for a, b in permutations(answers, 2)) / (len(answers) - 1) for answers in units) / n
    )
    everything = [answer for answers in units for answer in answers]
    between = sum(a != b for a, b in permutations(everything, 2)) / (n * (n - 1))
    return 1 - within / between


def test_cohens_own_kind_of_table() -> None:
    """The example of two readers of 50 proposals: 20 both yes, 15 both no, 5 and 10 apart: kappa 0.4."""
    answers = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohens_kappa(answers) == pytest.approx(0.4)


def test_krippendorffs_own_example() -> None:
    """The binary data of two observers in "Computing Krippendorff's alpha-reliability": 0.095."""
    first, second = "0100000010", "1110010000"
    assert krippendorffs_alpha(list(zip(first, second, strict=True))) == pytest.approx(0.095, abs=5e-4)


def test_krippendorffs_nominal_example_with_gaps() -> None:
    """Nominal data of four observers with missing values, from the same paper: 0.743."""
    rows = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]  # a point: no answer
    episodes = [[row[i] for row in rows if row[i] != "."] for i in range(12)]
    assert krippendorffs_alpha(episodes) == pytest.approx(0.743, abs=5e-4)


def test_nothing_to_compare_and_nothing_but_chance() -> None:
    assert cohens_kappa([]) is None
    assert cohens_kappa([("success", "success")] * 3) is None
    assert krippendorffs_alpha([]) is None
    assert krippendorffs_alpha([["success"], ["failure"]]) is None
    assert krippendorffs_alpha([["success", "success"]]) is None
    assert krippendorffs_alpha([["success", "success"], ["failure", "failure"]]) == 1


@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=30))
def test_kappa_is_what_the_slow_way_gives(answers: list[tuple[str, str]]) -> None:
    found = cohens_kappa(answers)
    if len({first for first, _ in answers} | {second for _, second in answers}) == 1:
        assert found is None
    else:
        assert found == pytest.approx(slow_kappa(answers))
        assert found is not None and -1 - 1e-9 <= found <= 1
        assert (found == 1) == all(first == second for first, second in answers)
        assert cohens_kappa([(second, first) for first, second in answers]) == pytest.approx(found)


@given(st.lists(st.lists(ANSWERS, max_size=4), max_size=20))
def test_alpha_is_what_the_slow_way_gives(episodes: list[list[str]]) -> None:
    found = krippendorffs_alpha(episodes)
    if len({answer for answers in episodes if len(answers) > 1 for answer in answers}) < 2:
        assert found is None
    else:
        assert found == pytest.approx(slow_alpha(episodes))
        assert found is not None and found <= 1


def test_the_whole_by_task_pair_and_gold() -> None:
    rated = [
        Rated("a", {"ana": "success", "bo": "success"}),
        Rated("a", {"ana": "failure", "bo": "success"}),
        Rated("b", {"bo": "failure", "cy": "failure"}),
        Rated("b", {"ana": "exclude"}),
    ]
    gold = [
        Rated("a", {"ana": "success", "bo": "failure"}, "success"),
        Rated("b", {"ana": "failure"}, "exclude"),
    ]
    found = measure(rated, gold)
    assert (found.n, found.agreed) == (3, 2)
    assert [(task.task, task.n, task.agreed) for task in found.tasks] == [("a", 2, 1), ("b", 1, 1)]
    assert [(pair.first, pair.second, pair.n, pair.agreed, pair.kappa) for pair in found.pairs] == [
        ("ana", "bo", 2, 1, 0.0),
        ("bo", "cy", 1, 1, None),
    ]
    assert [(one.annotator, one.n, one.correct) for one in found.gold] == [("ana", 2, 1), ("bo", 1, 0)]
    assert measure([], []).alpha is None
