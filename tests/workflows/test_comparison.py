"""Intervals and the paired test, against definitions and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from workflows.comparison import Attempt, paired_difference, performance, wilson_interval


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


def test_a_clear_improvement_is_seen_and_noise_is_not() -> None:
    """The paired test separates 40 % from 80 % on 100 starts, and does not separate a policy from itself."""
    rng = np.random.default_rng(0)
    weak = attempts(list(rng.random(100) < 0.4))
    strong = attempts(list(rng.random(100) < 0.8))
    better = paired_difference(strong, weak)
    assert better.p_value < 0.01
    assert better.successes_per_hour.low > 0
    assert paired_difference(weak, strong).p_value > 0.9
    same = paired_difference(weak, weak)
    assert same.p_value == 1.0
    assert same.successes_per_hour.value == 0


def test_other_starts_cannot_be_compared() -> None:
    """Two evaluations on different cubes say nothing about each other."""
    with pytest.raises(InputError, match="same starts"):
        paired_difference(attempts([True, True]), attempts([True, True], first_seed=7))
