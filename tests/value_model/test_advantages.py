"""Advantages and indicators: a slow reference, the promised share of positives, every exception."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from tests.value_model.synthetic import BLUE, RED, make_table
from value_model.advantages import (
    AdvantageConfig,
    Reason,
    indicators_of,
    label_frames,
    n_step_advantages,
    threshold,
)
from value_model.returns import Outcomes, frame_returns, task_scales

RATES = (5.0, 10.0, 30.0)
episodes = st.lists(
    st.tuples(
        st.integers(1, 25),
        st.sampled_from([RED, BLUE]),
        st.sampled_from(["success", "failure", None]),
        st.sampled_from(RATES),
    ),
    min_size=1,
    max_size=5,
)
horizons = st.one_of(
    st.just(AdvantageConfig()),
    st.integers(1, 30).map(lambda n: AdvantageConfig(horizon=n)),
    st.floats(0.05, 3.0).map(lambda seconds: AdvantageConfig(horizon_s=seconds)),
)
Chosen = list[tuple[int, str, str | None, float]]


def table_of(chosen: Chosen, sources: list[np.ndarray] | None = None) -> tuple[FrameTable, Outcomes]:
    lengths, tasks, outcomes, rates = (list(column) for column in zip(*chosen, strict=True))
    table = make_table(lengths, tasks, sources, rates=rates)
    return table, dict(zip(table.episode_ids, outcomes, strict=True))


def advantages_by_hand(
    length: int, rate: float, outcome: str, longest: float, penalty: float, value: np.ndarray, ahead: int
) -> list[float]:
    """One episode's advantages, reward by reward; ``longest`` in seconds."""
    normaliser = longest + penalty * longest
    last = 0.0 if outcome == "success" else -penalty * longest / normaliser
    rewards = [-1.0 / rate / normaliser] * (length - 1) + [last]
    found = []
    for t in range(length):
        if t + ahead < length:
            found.append(sum(rewards[t : t + ahead]) + value[t + ahead] - value[t])
        else:
            found.append(sum(rewards[t:]) - value[t])
    return found


@given(episodes, horizons, st.floats(0.2, 2.0), st.integers(0, 2**32 - 1))
def test_advantages_match_the_sum_written_out(
    chosen: Chosen, config: AdvantageConfig, penalty: float, seed: int
) -> None:
    table, outcomes = table_of(chosen)
    values = -np.random.default_rng(seed).random(len(table), dtype=np.float32)
    scales = task_scales(table, outcomes, penalty)
    returns = frame_returns(table, outcomes, scales)
    found = n_step_advantages(table, values, returns, scales, config)
    assert found.dtype == np.float32
    for i, (length, task, outcome, rate) in enumerate(chosen):
        rows = table.frames_of(i)
        if outcome is None:
            assert np.isnan(found[rows]).all()
            continue
        longest = max(n / r for n, t, o, r in chosen if t == task and o is not None)
        ahead = config.horizon or length
        if config.horizon_s is not None:
            ahead = max(1, round(config.horizon_s * rate))
        expected = advantages_by_hand(length, rate, outcome, longest, penalty, values[rows], ahead)
        np.testing.assert_allclose(found[rows], expected, atol=1e-5)


@given(
    episodes, horizons, st.floats(0.05, 0.95), st.booleans(), st.integers(0, 2**32 - 1), st.floats(1.0, 3.0)
)
def test_indicators_and_reasons_match_the_rules_written_out(
    chosen: Chosen, config: AdvantageConfig, share: float, barring: bool, seed: int, penalty: float
) -> None:
    config = replace(config, positive_fraction=share, negative_failure_ends=barring)
    rng = np.random.default_rng(seed)
    sources = [rng.integers(0, 3, n).astype(np.uint8) for n, _, _, _ in chosen]
    table, outcomes = table_of(chosen, sources)
    values = -rng.random(len(table), dtype=np.float32)
    result = label_frames(table, values, outcomes, penalty, config)
    frames = [
        (i, t, *chosen[i], int(sources[i][t]), float(result.advantages[int(table.starts[i]) + t]))
        for i in range(len(chosen))
        for t in range(chosen[i][0])
    ]

    def at_the_end_of_a_failure(t: int, length: int, outcome: str | None, rate: float) -> bool:
        ahead = config.frames_ahead(rate)
        return barring and outcome == "failure" and (ahead is None or t + ahead >= length)

    for (_, t, length, task, outcome, rate, source, advantage), reason, indicator in zip(
        frames, result.reasons.tolist(), result.indicators.tolist(), strict=True
    ):
        if outcome is None:
            assert (reason, indicator) == (Reason.NO_OUTCOME, NONE)
            continue
        if source == Source.INTERVENTION:
            assert (reason, indicator) == (Reason.FORCED_POSITIVE_INTERVENTION, POSITIVE)
            continue
        autonomous = [f for f in frames if f[3] == task and f[4] is not None and f[6] != Source.INTERVENTION]
        allowed = [f[7] for f in autonomous if not at_the_end_of_a_failure(f[1], f[2], f[4], f[5])]
        places = round(share * len(autonomous))
        better = sum(other > advantage for other in allowed)
        as_good = sum(other == advantage for other in allowed)
        if at_the_end_of_a_failure(t, length, outcome, rate):
            assert indicator == NEGATIVE
            above = advantage > result.thresholds[task]
            assert reason == (Reason.NEGATIVE_FAILURE_END if above else Reason.BELOW_THRESHOLD)
        elif better + as_good <= places:
            assert (reason, indicator) == (Reason.ABOVE_THRESHOLD, POSITIVE)
        else:
            assert (reason, indicator) == (Reason.BELOW_THRESHOLD, NEGATIVE)


def test_a_horizon_in_seconds_is_as_many_frames_as_each_episode_makes_of_it() -> None:
    config = AdvantageConfig(horizon_s=0.5)
    assert [config.frames_ahead(rate) for rate in (1.0, 10.0, 30.0)] == [1, 5, 15]
    assert AdvantageConfig(horizon=7).frames_ahead(30.0) == 7
    assert AdvantageConfig().frames_ahead(30.0) is None
    for frames, seconds in ((5, 0.5), (None, 0.0), (None, float("nan"))):
        with pytest.raises(InputError, match="horizon"):
            AdvantageConfig(horizon=frames, horizon_s=seconds)


def test_without_a_horizon_the_advantage_is_return_minus_value() -> None:
    table = make_table([7, 9])
    outcomes = {"e000": "success", "e001": "failure"}
    scales = task_scales(table, outcomes, 1.0)
    returns = frame_returns(table, outcomes, scales)
    values = np.linspace(-1, 0, 16, dtype=np.float32)
    np.testing.assert_allclose(
        n_step_advantages(table, values, returns, scales, AdvantageConfig()), returns - values
    )


def test_values_that_are_the_true_returns_leave_no_advantage_anywhere() -> None:
    table = make_table([30, 12])
    outcomes = {"e000": "success", "e001": "failure"}
    scales = task_scales(table, outcomes, 1.0)
    returns = frame_returns(table, outcomes, scales)
    found = n_step_advantages(table, returns, returns, scales, AdvantageConfig(horizon=5))
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60, unique=True), st.floats(0.01, 0.99))
def test_without_ties_exactly_the_promised_number_is_positive(advantages: list[float], share: float) -> None:
    array = np.array(advantages, dtype=np.float32)
    assert int((array > threshold(array, share)).sum()) == round(share * len(array))


@given(st.lists(st.sampled_from([-0.5, 0.0, 0.25]), min_size=1, max_size=40), st.floats(0.01, 0.99))
def test_ties_make_fewer_positive_and_never_split_equal_frames(advantages: list[float], share: float) -> None:
    array = np.array(advantages, dtype=np.float32)
    positive = array > threshold(array, share)
    wanted = round(share * len(array))
    assert positive.sum() <= wanted
    if positive.sum() < wanted:
        # One more value's worth of frames would be too many.
        next_value = array[~positive].max()
        assert positive.sum() + (array == next_value).sum() > wanted


def test_the_threshold_is_a_share_of_positives_and_not_a_percentile() -> None:
    advantages = np.arange(100, dtype=np.float32)
    assert (advantages > threshold(advantages, 0.3)).sum() == 30
    assert (advantages > threshold(advantages, 1.0)).sum() == 100
    assert np.isfinite(json.loads(json.dumps(threshold(advantages, 1.0))))
    with pytest.raises(InputError, match="1 missing"):
        threshold(np.array([0.1, np.nan]), 0.3)
    with pytest.raises(InputError, match="0 advantages"):
        threshold(np.array([]), 0.3)


def test_each_task_has_its_own_threshold_and_its_own_share() -> None:
    table = make_table([50, 50], [RED, BLUE])
    outcomes = {"e000": "success", "e001": "failure"}
    values = -np.random.default_rng(0).random(100, dtype=np.float32)
    result = label_frames(table, values, outcomes, 1.0, AdvantageConfig(horizon=5, positive_fraction=0.4))
    positive = (result.indicators == POSITIVE).reshape(2, 50).sum(1)
    assert positive.tolist() == [20, 20]
    assert result.thresholds[RED] != result.thresholds[BLUE]
    assert result.indicators.dtype == np.int8 and result.reasons.dtype == np.int8


def corrected_table() -> tuple[np.ndarray, np.ndarray]:
    """Sources of two episodes: a rollout whose last third a person drives, and a demonstration."""
    rollout = np.full(30, Source.POLICY, np.uint8)
    rollout[20:] = Source.INTERVENTION
    return rollout, np.full(20, Source.TELEOP, np.uint8)


def test_corrections_are_positive_and_have_no_say_in_the_threshold() -> None:
    table = make_table([30, 20], sources=corrected_table())
    outcomes = {"e000": "failure", "e001": "success"}
    rng = np.random.default_rng(1)
    config = AdvantageConfig(horizon=4, positive_fraction=0.25)
    values = -rng.random(50, dtype=np.float32)
    result = label_frames(table, values, outcomes, 1.0, config)
    assert (result.reasons[20:30] == Reason.FORCED_POSITIVE_INTERVENTION).all()
    assert (result.indicators[20:30] == POSITIVE).all()
    free = np.r_[0:20, 30:50]
    assert int((result.indicators[free] == POSITIVE).sum()) == 10
    # Corrections' values reach the threshold only as V(o_{t+N}) of the four frames before them.
    other = values.copy()
    other[24:30] = -1.0
    assert label_frames(table, other, outcomes, 1.0, config).thresholds == result.thresholds


def test_the_value_of_a_correction_counts_for_the_frames_before_it() -> None:
    table = make_table([30, 20], sources=corrected_table())
    outcomes = {"e000": "success", "e001": "success"}
    values = np.full(50, -0.5, np.float32)
    better = values.copy()
    better[20:30] = -0.1
    config = AdvantageConfig(horizon=4)
    before, after = (label_frames(table, v, outcomes, 1.0, config).advantages for v in (values, better))
    np.testing.assert_allclose(after[16:20] - before[16:20], 0.4, atol=1e-6)
    np.testing.assert_array_equal(after[:16], before[:16])


def test_an_episode_without_outcome_gets_no_indicator_even_where_a_person_corrected() -> None:
    table = make_table([30, 20], sources=corrected_table())
    values = np.full(50, -0.5, np.float32)
    result = label_frames(table, values, {"e000": None, "e001": "success"}, 1.0, AdvantageConfig(horizon=4))
    assert (result.indicators[:30] == NONE).all()
    assert (result.reasons[:30] == Reason.NO_OUTCOME).all()
    assert np.isnan(result.advantages[:30]).all() and np.isnan(result.returns[:30]).all()
    assert set(result.indicators[30:].tolist()) <= {POSITIVE, NEGATIVE}


def test_a_task_of_corrections_alone_needs_no_threshold() -> None:
    table = make_table([8], sources=[np.full(8, Source.INTERVENTION, np.uint8)])
    result = label_frames(table, np.full(8, -0.5, np.float32), {"e000": "success"}, 1.0, AdvantageConfig())
    assert result.thresholds == {}
    assert (result.indicators == POSITIVE).all()


def test_a_missing_value_is_an_error_and_never_zero() -> None:
    table = make_table([10, 10])
    outcomes = {"e000": "success", "e001": "success"}
    values = np.full(20, -0.5, np.float32)
    values[13] = np.nan
    with pytest.raises(InputError, match="frame 3 of episode e001 has no value"):
        label_frames(table, values, outcomes, 1.0, AdvantageConfig())
    with pytest.raises(InputError, match="for 20 frames"):
        label_frames(table, values[:19], outcomes, 1.0, AdvantageConfig())


def test_every_reason_has_one_indicator() -> None:
    reasons = np.array(list(Reason), dtype=np.int8)
    assert indicators_of(reasons).tolist() == [NONE, NEGATIVE, POSITIVE, POSITIVE, NEGATIVE]


@pytest.mark.parametrize("fraction", [0.0, 1.0, 30.0, -0.1])
def test_a_fraction_that_makes_all_or_none_positive_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="positive_fraction"):
        AdvantageConfig(positive_fraction=fraction)
    with pytest.raises(InputError, match="horizon"):
        AdvantageConfig(horizon=0)


def test_demonstrations_are_counted_and_judged_like_a_policys_frames() -> None:
    table = make_table([60] * 4, sources=[np.full(60, s, np.uint8) for s in (0, 0, 1, 1)])
    assert (Source.TELEOP, Source.POLICY) == (0, 1)
    values = -np.random.default_rng(0).random(240, dtype=np.float32)
    outcomes: Outcomes = dict.fromkeys(table.episode_ids, "success")
    config = AdvantageConfig(horizon=5, positive_fraction=0.3)
    found = label_frames(table, values, outcomes, 1.0, config)
    assert (found.indicators == POSITIVE).sum() == 72
    as_policy = replace(table, source=np.ones(240, np.uint8))
    np.testing.assert_array_equal(
        label_frames(as_policy, values, outcomes, 1.0, config).indicators, found.indicators
    )
