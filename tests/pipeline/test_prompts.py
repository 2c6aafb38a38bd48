"""Prompts: text round trips, and indicator dropout is the stated share, seeded, and never invents one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import InputError
from pipeline.prompts import (
    NEGATIVE,
    NONE,
    POSITIVE,
    Indicator,
    drop_indicators,
    parse_prompt,
    prompt,
)

CODES = [POSITIVE, NEGATIVE, NONE]
indicator_arrays = hnp.arrays(np.int8, st.integers(0, 200), elements=st.sampled_from(CODES))


def test_the_texts_are_the_agreed_ones() -> None:
    assert prompt("pick up the red cube", None) == "pick up the red cube"
    assert prompt("pick up the red cube", "positive") == "pick up the red cube. Advantage: positive"
    assert prompt("pick up the red cube", "negative") == "pick up the red cube. Advantage: negative"


@given(st.text(min_size=1), st.sampled_from(["positive", "negative", None]))
def test_a_prompt_parses_back_or_its_task_is_refused(task: str, indicator: Indicator | None) -> None:
    try:
        text = prompt(task, indicator)
    except InputError:
        assert task != task.strip() or not task or parse_prompt(task)[1] is not None
    else:
        assert parse_prompt(text) == (task, indicator)


@pytest.mark.parametrize("task", ["", " pick", "pick\n", "pick. Advantage: positive"])
def test_a_task_that_would_not_parse_back_is_refused(task: str) -> None:
    with pytest.raises(InputError, match="task"):
        prompt(task, "negative")


def test_an_unknown_indicator_is_refused() -> None:
    word: Any = "Positive"
    with pytest.raises(InputError, match="unknown indicator 'Positive'"):
        prompt("pick", word)


def test_a_suffix_alone_is_a_bare_task() -> None:
    assert parse_prompt(". Advantage: positive") == (". Advantage: positive", None)


@given(indicator_arrays, st.floats(0, 1), st.integers(0, 2**32))
def test_dropout_only_ever_removes(indicators: np.ndarray, rate: float, seed: int) -> None:
    before = indicators.copy()
    kept = drop_indicators(indicators, rate, np.random.default_rng(seed))
    assert kept.dtype == np.int8
    assert ((kept == indicators) | (kept == NONE)).all()
    assert (indicators == before).all()
    assert (kept == drop_indicators(indicators, rate, np.random.default_rng(seed))).all()


@given(indicator_arrays)
def test_rates_zero_and_one(indicators: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    assert (drop_indicators(indicators, 0.0, rng) == indicators).all()
    assert (drop_indicators(indicators, 1.0, rng) == NONE).all()


def test_the_rate_is_the_share_that_is_dropped() -> None:
    kept = drop_indicators(np.ones(20_000, dtype=np.int8), 0.3, np.random.default_rng(7))
    # Six standard deviations of a binomial share.
    assert abs((kept == NONE).mean() - 0.3) < 6 * np.sqrt(0.3 * 0.7 / 20_000)


def test_which_frames_are_dropped_does_not_depend_on_the_indicators() -> None:
    positive = drop_indicators(np.full(500, POSITIVE, np.int8), 0.5, np.random.default_rng(3))
    negative = drop_indicators(np.full(500, NEGATIVE, np.int8), 0.5, np.random.default_rng(3))
    assert ((positive == NONE) == (negative == NONE)).all()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_outside_the_unit_interval_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="dropout"):
        drop_indicators(np.zeros(3, np.int8), rate, np.random.default_rng(0))


@pytest.mark.parametrize(
    "indicators", [np.zeros(3, np.int64), np.zeros((3, 1), np.int8), np.array([2], np.int8)]
)
def test_arrays_that_are_no_indicators_are_refused(indicators: np.ndarray) -> None:
    with pytest.raises(InputError, match="indicators"):
        drop_indicators(indicators, 0.3, np.random.default_rng(0))
