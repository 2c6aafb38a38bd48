"""Intervals, against definitions and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.comparison import (
    Attempt,
    Estimate,
    mean_difference,
    paired_intervals,
    paired_share,
    performance,
    wilson_interval,
)


def attempts(successes: list[bool], seconds: float = 5.0, first_seed: int = 0) -> list[Attempt]:
    """One attempt per entry, on consecutive starts."""
    return [Attempt("t", first_seed + i, s, int(seconds * 10), seconds) for i, s in enumerate(successes)]


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_bounds_solve_the_score_equation(case: tuple[int, int]) -> None:
    """At each bound p, |p̂ − p| is z standard errors *of p*, which is how the interval is defined."""
    successes, n = case
    estimate = wilson_interval(successes, n)
    observed = successes / n
    assert 0 <= estimate.low <= observed <= estimate.high <= 1
    for bound in (estimate.low, estimate.high):
        if bound not in (0.0, 1.0):
            z = abs(observed - bound) / math.sqrt(bound * (1 - bound) / n)
            assert z == pytest.approx(1.959964, abs=1e-3)


def test_wilson_of_nothing_is_an_error() -> None:
    """No attempts, no proportion."""
    with pytest.raises(ValueError, match="0 attempts"):
        wilson_interval(0, 0)


@st.composite
def paired_counts(draw: st.DrawFn) -> tuple[int, int, int]:
    """Starts that only the one, only the other solved, and all."""
    starts = draw(st.integers(1, 60))
    gained = draw(st.integers(0, starts))
    return gained, draw(st.integers(0, starts - gained)), starts


@given(paired_counts())
def test_the_bounds_of_a_paired_share_are_where_the_score_test_just_rejects(
    counts: tuple[int, int, int],
) -> None:
    """At each bound d, the observed is 1.96 standard errors off, with the likeliest chances under d."""
    gained, lost, starts = counts
    estimate = paired_share(gained, lost, starts)
    assert -1 <= estimate.low <= estimate.value + 1e-9 and estimate.value <= estimate.high + 1e-9 <= 1 + 1e-9
    assert estimate.value == pytest.approx((gained - lost) / starts)
    for d in (estimate.low, estimate.high):
        if abs(d) > 0.999:
            continue
        # The chance of a start that only the reference solves, by brute force over what d allows.
        allowed = np.linspace(max(0.0, -d), (1 - d) / 2, 40_001)[1:-1]
        with np.errstate(divide="ignore"):
            likelihood = (starts - gained - lost) * np.log(1 - 2 * allowed - d)
            likelihood += gained * np.log(allowed + d) if gained else 0
            likelihood += lost * np.log(allowed) if lost else 0
        q = allowed[np.argmax(likelihood)]
        z = abs(gained - lost - starts * d) / math.sqrt(starts * (2 * q + d * (1 - d)))
        assert z == pytest.approx(1.959964, abs=0.02)


def test_a_paired_share_of_few_starts_is_uncertain_even_where_nothing_differs() -> None:
    """Twenty starts on which both did the same leave a loss of 16 points possible; so does its mirror."""
    same = paired_share(0, 0, 20)
    assert same.value == 0 and same.high == pytest.approx(0.161, abs=1e-3)
    assert same.low == pytest.approx(-same.high)
    one, other = paired_share(7, 2, 30), paired_share(2, 7, 30)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    for counts in ((0, 0, 0), (2, 2, 3), (-1, 0, 3)):
        with pytest.raises(ValueError, match="starts"):
            paired_share(*counts)


def test_a_mean_difference_has_its_interval_around_it() -> None:
    found = mean_difference([1, 0, 0, 0, -1, 1, 1, 0] * 10)
    assert found.value == pytest.approx(0.25) and found.low < 0.25 < found.high
    assert found.high - found.low == pytest.approx(
        2 * 1.96 * np.std([1, 0, 0, 0, -1, 1, 1, 0]) / 80**0.5, rel=0.1
    )
    with pytest.raises(ValueError, match="no differences"):
        mean_difference([])


def test_throughput_counts_the_time_of_failures_too() -> None:
    """Two successes in four attempts of 5 s are 2 per 20 s, 360 an hour."""
    result = performance(attempts([True, False, True, False]))
    assert result.successes_per_hour.value == pytest.approx(360.0)
    assert result.success_rate.value == 0.5
    assert result.median_success_seconds == 5.0
    assert result.successes_per_hour.low <= 360 <= result.successes_per_hour.high


def test_no_success_has_no_median_time() -> None:
    """An evaluation of failures is a result like any other."""
    assert performance(attempts([False] * 5)).median_success_seconds is None


def test_a_clear_improvement_lies_above_zero_and_its_reverse_below() -> None:
    """40 % against 80 % on 100 starts; a policy does not differ from itself."""
    rng = np.random.default_rng(0)
    weak = attempts(list(rng.random(100) < 0.4))
    strong = attempts(list(rng.random(100) < 0.8))
    assert all(0 < found.low < found.value < found.high for found in paired_intervals(strong, weak))
    assert all(found.high < 0 for found in paired_intervals(weak, strong))
    assert all(found == Estimate(0, 0, 0) for found in paired_intervals(weak, weak))
