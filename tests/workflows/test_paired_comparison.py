"""One test for every comparison: what it is by its definition, and how often it is wrong."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.workflows.promotion_samples import BASE, RECAP, Skill, evaluations
from workflows.comparison import SIGNIFICANCE, Attempt
from workflows.paired_comparison import paired_difference
from workflows.policy_evaluation import difference
from workflows.promotion import compared, judge
from workflows.promotion_looks import SWAPS
from workflows.promotion_rule import PromotionRule

results = st.tuples(st.booleans(), st.integers(10, 80).map(lambda tenths: tenths / 10))
pairs_of = st.lists(st.tuples(results, results), min_size=1, max_size=8)
Pairs = list[tuple[tuple[bool, float], tuple[bool, float]]]


def sides(pairs: Pairs) -> tuple[list[Attempt], list[Attempt]]:
    """What the candidate and the other did on consecutive starts."""
    candidate, other = (
        [Attempt("t", i, won, round(10 * spent), spent) for i, (won, spent) in enumerate(side)]
        for side in zip(*pairs, strict=True)
    )
    return candidate, other


def exact(candidate: list[Attempt], other: list[Attempt]) -> float:
    """The one-sided p-value over all swaps of the two results of a start, from the definition."""
    pooled = [*candidate, *other]
    rate = sum(a.success for a in pooled) / sum(a.seconds for a in pooled)

    def excess(one: list[Attempt]) -> float:
        return sum(a.success - rate * a.seconds for a in one)

    observed = excess(candidate) - excess(other)
    found = []
    for swapped in itertools.product((False, True), repeat=len(candidate)):
        first = [r if swap else c for swap, c, r in zip(swapped, candidate, other, strict=True)]
        second = [c if swap else r for swap, c, r in zip(swapped, candidate, other, strict=True)]
        found.append(excess(first) - excess(second) >= observed - 1e-9)
    return float(np.mean(found))


@settings(deadline=None, max_examples=30)
@given(pairs_of)
def test_it_is_the_test_over_all_swaps(pairs: Pairs) -> None:
    candidate, other = sides(pairs)
    found, p = paired_difference(candidate, other), exact(candidate, other)
    # Random swaps meet the exact share within their error.
    assert found.p_value == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / SWAPS) + 2e-4)
    if found.better:
        assert p <= SIGNIFICANCE + 0.01 and found.successes_per_hour.value > 0


@settings(deadline=None, max_examples=15)
@given(pairs=st.lists(st.tuples(results, results, results), min_size=8, max_size=20))
def test_reports_and_evaluate_say_the_same_of_the_same_starts(
    pairs: list[tuple[tuple[bool, float], tuple[bool, float], tuple[bool, float]]],
) -> None:
    """Whether a policy is the one to be beaten or another: the p-value and "better" are of one test."""
    named = ("RECAP", "base", "filtered BC")
    attempts = {name: sides([(row[i], row[i]) for row in pairs])[0] for i, name in enumerate(named)}
    rule = PromotionRule(stop_early=False, success_loss=1.0, task_success_loss=1.0)
    decision = judge(attempts["RECAP"], attempts["base"], "base", len(pairs), rule).decision()
    for name, found in compared(attempts, "RECAP", "base", decision).items():
        said = difference(attempts["RECAP"], attempts[name])
        assert found.better == said["better"] and found.p_value == pytest.approx(said["p_value"], abs=2e-3)


def share_called_better(candidate: Skill, other: Skill, starts: int, times: int) -> float:
    """How often made-up evaluations call the candidate better."""
    rng = np.random.default_rng(5)
    found = [paired_difference(*evaluations(candidate, other, starts, rng), swaps=399) for _ in range(times)]
    return sum(one.better for one in found) / times


@pytest.mark.parametrize(("starts", "times"), [(8, 400), (100, 80)])
def test_one_that_is_no_better_is_seldom_called_better(starts: int, times: int) -> None:
    """5 % at most, for few starts too; the share of bootstrap resamples called 11 % of 8 starts better."""
    assert share_called_better(BASE, BASE, starts, times) < 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / times)


def test_a_clear_improvement_is_found() -> None:
    assert share_called_better(RECAP, BASE, 100, 20) > 0.9
    assert share_called_better(BASE, RECAP, 100, 20) == 0


def test_a_policy_is_not_better_than_itself_nor_by_four_starts() -> None:
    same, _ = evaluations(BASE, BASE, 40, np.random.default_rng(0))
    found = paired_difference(same, same)
    assert (found.p_value, found.better, found.successes_per_hour.value) == (1.0, False, 0.0)
    for starts, better in ((4, False), (5, True)):
        found = paired_difference(*sides([((True, 2.0), (False, 8.0))] * starts))
        assert found.better is better and found.p_value >= 0.5**starts


def test_other_starts_cannot_be_compared() -> None:
    """Two evaluations on different cubes say nothing about each other."""
    candidate, other = sides([((True, 2.0), (True, 2.0))] * 2)
    with pytest.raises(InputError, match="same starts"):
        paired_difference(candidate, other[::-1])
