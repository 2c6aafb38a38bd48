"""Quality measures against cases whose answer is known, and the time-only baseline."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from tests.value_model.synthetic import BLUE, RED, SMALL, make_table
from value_model.baselines import score_time_only
from value_model.calibration import ValueQuality, measure_quality, positive_share
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
