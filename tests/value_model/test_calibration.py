"""Quality measures against cases whose answer is known, and the time-only baseline."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from tests.value_model.synthetic import BLUE, RED, SMALL, make_table
from value_model.baselines import score_time_only
from value_model.calibration import (
    ValueQuality,
    adaptive_calibration_error,
    calibration_noise,
    correlation,
    expected_calibration_error,
    measure_quality,
    positive_share,
    rank_correlations,
)
from value_model.discrimination import pooled_auc
from value_model.folds import assign_folds
from value_model.returns import frame_returns, task_scales

TASKS = [RED, RED, BLUE, BLUE, RED, BLUE]
OUTCOMES: dict[str, str | None] = {
    "e000": "success", "e001": "failure", "e002": "success", "e003": "failure", "e004": None
}  # fmt: skip


def test_perfect_values_are_called_perfect_and_reversed_ones_the_opposite() -> None:
    table = make_table([10, 20, 12, 20, 15, 9], TASKS)
    returns = frame_returns(table, OUTCOMES, task_scales(table, OUTCOMES, 1.0))
    values = np.where(np.isnan(returns), -0.3, returns).astype(np.float32)
    quality = measure_quality(table, values, OUTCOMES, 1.0)
    assert (quality.frames, quality.episodes) == (62, 4)
    assert quality.correlation == pytest.approx(1.0) and quality.mean_absolute_error == 0.0
    assert set(quality.auc_by_part.values()) == {1.0} and set(quality.auc_same_age.values()) == {1.0}
    for part in quality.reliability:
        assert part.mean_value == pytest.approx(part.mean_return)
        assert part.low <= part.mean_value <= part.high
    assert sum(part.frames for part in quality.reliability) == 62
    reverse = measure_quality(table, -1 - values, OUTCOMES, 1.0)
    assert reverse.correlation == pytest.approx(-1.0) and set(reverse.auc_by_part.values()) == {0.0}


def test_constant_values_have_no_correlation_and_an_auc_of_one_half() -> None:
    table = make_table([10, 20, 12, 20, 15, 9], TASKS)
    quality = measure_quality(table, np.full(len(table), -0.5, np.float32), OUTCOMES, 1.0)
    assert quality.correlation is None and quality.correlation_by_task == {RED: None, BLUE: None}
    assert set(quality.auc_by_part.values()) == {0.5}


def test_successes_are_compared_with_failures_of_their_own_task_only() -> None:
    table = make_table([10, 10, 10, 10], [RED, RED, BLUE, BLUE])
    outcomes = {"e000": "success", "e001": "failure", "e002": "success", "e003": "failure"}
    # Within each task the success is worth more; blue's success is worth less than red's failure.
    values = np.repeat(np.array([-0.1, -0.2, -0.8, -0.9], np.float32), 10)
    assert measure_quality(table, values, outcomes, 1.0).auc_by_part["50%"] == 1.0


def test_one_outcome_alone_gives_no_auc() -> None:
    table = make_table([10, 10])
    quality = measure_quality(
        table, np.linspace(-1, 0, 20, dtype=np.float32), dict.fromkeys(table.episode_ids, "success"), 1.0
    )
    assert quality.auc_by_part == {"25%": None, "50%": None, "75%": None}


def test_quality_survives_json() -> None:
    table = make_table([10, 20, 12, 20, 15, 9], TASKS)
    values = -np.random.default_rng(0).random(len(table), dtype=np.float32)
    indicators = np.resize(np.array([POSITIVE, NEGATIVE, NONE], np.int8), len(table))
    quality = measure_quality(table, values, OUTCOMES, 1.0, indicators)
    assert ValueQuality.from_json(quality.to_json()) == quality


def test_positive_share_is_per_task_and_source_among_frames_with_an_indicator() -> None:
    mixed = np.array([Source.POLICY, Source.INTERVENTION] * 2, np.uint8)
    sources = [np.full(4, Source.TELEOP, np.uint8), mixed]
    table = make_table([4, 4], [RED, BLUE], sources=sources)
    indicators = np.array([1, 0, 0, -1, 0, 1, 0, 1], np.int8)
    assert positive_share(table, indicators) == {
        RED: {"teleop": pytest.approx(1 / 3)},
        BLUE: {"policy": 0.0, "intervention": 1.0},
    }


def test_values_that_are_missing_and_data_without_outcomes_are_refused() -> None:
    table = make_table([4, 4])
    with pytest.raises(InputError, match="no episode has an outcome"):
        measure_quality(table, np.zeros(8, np.float32), {}, 1.0)
    with pytest.raises(InputError, match="not finite"):
        measure_quality(table, np.full(8, np.nan, np.float32), {"e000": "success"}, 1.0)


def test_the_time_only_baseline_is_out_of_fold_and_knows_task_and_age() -> None:
    table = make_table([10] * 16, [RED, BLUE] * 8)
    outcomes: dict[str, str | None] = {
        i: "success" if t == RED else "failure" for i, t in zip(table.episode_ids, table.tasks, strict=True)
    }
    values = score_time_only(table, outcomes, SMALL)
    assert values.dtype == np.float32 and np.isfinite(values).all()
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, 1.0))
    np.testing.assert_allclose(values, returns, atol=0.06)
    # Turning one episode into a failure must not change that episode's own values.
    changed = {**outcomes, "e000": "failure"}
    if assign_folds(table, changed, 2, 0) == assign_folds(table, outcomes, 2, 0):
        np.testing.assert_array_equal(score_time_only(table, changed, SMALL)[:10], values[:10])


def test_the_time_only_baseline_scores_an_unlabelled_episode_by_all_folds() -> None:
    table = make_table([10] * 9)
    outcomes: dict[str, str | None] = dict.fromkeys(table.episode_ids[:8], "success")
    values = score_time_only(table, outcomes, SMALL)
    np.testing.assert_allclose(values[80:], values[:10], atol=1e-6)


def slow_calibration_error(values: list[float], returns: list[float]) -> float:
    """From the definition: walk over ten parts of [−1, 0], and over the frames of each."""
    total = 0.0
    for b in range(10):
        low, high = -1 + b / 10, -1 + (b + 1) / 10
        inside = [
            (v, r)
            for v, r in zip(values, returns, strict=True)
            if (v >= low or b == 0) and (v < high or b == 9)
        ]
        if inside:
            gap = sum(v for v, _ in inside) / len(inside) - sum(r for _, r in inside) / len(inside)
            total += len(inside) / len(values) * abs(gap)
    return total


# Away from the parts' edges: there, which part a number belongs to is a matter of rounding.
UNIT = st.integers(-1000, 0).map(lambda n: n / 1000).filter(lambda x: 0.001 < (x * 10) % 1 < 0.999)


@given(st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=60))
def test_the_expected_calibration_error_is_its_definition(pairs: list[tuple[float, float]]) -> None:
    values, returns = (list(column) for column in zip(*pairs, strict=True))
    found = expected_calibration_error(np.array(values), np.array(returns))
    assert found == pytest.approx(slow_calibration_error(values, returns), abs=1e-9)
    assert expected_calibration_error(np.array(values), np.array(values)) == pytest.approx(0)


@given(st.lists(st.tuples(UNIT, UNIT), min_size=10, max_size=60))
def test_the_adaptive_error_keeps_equal_values_together_and_is_no_less_than_the_overall_gap(
    pairs: list[tuple[float, float]],
) -> None:
    values, returns = (np.array(column) for column in zip(*pairs, strict=True))
    found = adaptive_calibration_error(values, returns)
    assert found >= abs(values.mean() - returns.mean()) - 1e-9
    order = np.random.default_rng(0).permutation(len(values))
    assert adaptive_calibration_error(values[order], returns[order]) == pytest.approx(found)
    constant = np.full(len(values), -0.25)
    assert adaptive_calibration_error(constant, returns) == pytest.approx(abs(-0.25 - returns.mean()))


def test_the_noise_of_the_calibration_error_is_what_calibrated_values_show() -> None:
    rng = np.random.default_rng(0)
    shown, expected = [], []
    for _ in range(200):
        chance = rng.random(100)
        won = rng.random(100) < chance
        # An episode's frames share its luck, and its value.
        values, episode = np.repeat(chance - 1, 20), np.repeat(np.arange(100), 20)
        returns = np.where(np.repeat(won, 20), 0.0, -1.0)
        shown.append(expected_calibration_error(values, returns))
        expected.append(calibration_noise(values, returns, episode))
    assert np.mean(expected) == pytest.approx(np.mean(shown), rel=0.15)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_rank_correlation_is_spearmans_over_the_frames_of_successes(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(2, 6), min_size=2, max_size=6))
    table = make_table(lengths)
    won = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    outcomes = {i: "success" if w else "failure" for i, w in zip(table.episode_ids, won, strict=True)}
    drawn = st.lists(st.integers(-10, 0), min_size=len(table), max_size=len(table))
    values = np.array(data.draw(drawn), float) / 10
    found = rank_correlations(table, values, outcomes)
    pairs = [
        (values[f], -(lengths[e] - 1 - table.frame_index[f]))
        for e, w in enumerate(won)
        for f in range(table.frames_of(e).start, table.frames_of(e).stop)
        if w
    ]
    if not pairs:
        assert found == {}
        return
    expected = correlation(*(np.array(slow_ranks(list(column))) for column in zip(*pairs, strict=True)))
    assert found[RED] == (None if expected is None else pytest.approx(expected, abs=1e-9))


def slow_ranks(numbers: list[float]) -> list[float]:
    """1 for the least; equal numbers share the mean of their ranks."""
    return [
        sum(other < number for other in numbers) + (sum(other == number for other in numbers) + 1) / 2
        for number in numbers
    ]


def test_time_to_go_is_in_seconds_where_episodes_differ_in_their_rates() -> None:
    table = replace(make_table([5, 9]), rates=np.array([5.0, 10.0]))
    # Both last 0.8 s from first to last frame; values follow the seconds that are left.
    left = np.concatenate([np.arange(4, -1, -1) / 5, np.arange(8, -1, -1) / 10])
    outcomes = dict.fromkeys(table.episode_ids, "success")
    assert rank_correlations(table, -left, outcomes)[RED] == pytest.approx(1.0)


def test_baselines_get_the_same_numbers_and_old_files_are_still_read() -> None:
    table = make_table([10, 20, 12, 20, 15, 9], TASKS)
    values = -np.random.default_rng(0).random(len(table), dtype=np.float32)
    rival = score_time_only(table, OUTCOMES, SMALL)
    quality = measure_quality(table, values, OUTCOMES, 1.0, baselines={"time only": rival})
    assert quality.baselines == {"time only": measure_quality(table, rival, OUTCOMES, 1.0)}
    assert ValueQuality.from_json(quality.to_json()) == quality
    document = json.loads(quality.to_json())
    for name in ("expected_calibration_error", "rank_correlation", "baselines"):
        del document[name]
    assert ValueQuality.from_document(document).rank_correlation is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_auc_is_the_share_of_pairs_within_a_stratum_that_are_ordered_rightly(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    score = data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.2, np.nan]), min_size=count, max_size=count))
    won = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    stratum = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    pairs = [
        (score[i] > score[j]) + 0.5 * (score[i] == score[j])
        for i in range(count)
        for j in range(count)
        if won[i] and not won[j] and stratum[i] == stratum[j] and not np.isnan([score[i], score[j]]).any()
    ]
    found = pooled_auc(np.array(score), np.array([won]), np.array(stratum))[0]
    assert np.isnan(found) if not pairs else found == pytest.approx(np.mean(pairs))
