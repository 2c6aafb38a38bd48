"""The end of a failure is never positive: why that is a rule, and that it is one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, POSITIVE
from tests.value_model.synthetic import BLUE, RED, make_table
from tests.value_model.test_advantages import Chosen, episodes, horizons, table_of
from value_model.advantages import AdvantageConfig, Reason, failure_ends, label_frames
from value_model.returns import Outcomes, frame_returns, task_scales


def attempts_that_get_stuck(
    episodes: int, rng: np.random.Generator, limit: int = 80
) -> tuple[FrameTable, Outcomes, np.ndarray]:
    """Attempts of 12 stages; some get stuck for good and go on until the time limit. Also each frame's state.

    How far it is, or that it is stuck, is all that a picture could show; how old it is, no picture shows.
    """
    states, outcomes = [], []
    for _ in range(episodes):
        stage, seen = 0, [0]
        advance = 0.45 if rng.random() < 0.7 else 0.15
        while len(seen) < limit and stage != 12:
            if stage != -1:
                stage = -1 if rng.random() < 0.02 else stage + int(rng.random() < advance)
            seen.append(stage)
        states.append(np.array(seen))
        outcomes.append("success" if stage == 12 else "failure")
    table = make_table([len(seen) for seen in states])
    return table, dict(zip(table.episode_ids, outcomes, strict=True)), np.concatenate(states)


def calibrated_values(
    table: FrameTable, outcomes: Outcomes, states: np.ndarray, penalty: float
) -> np.ndarray:
    """The mean return of all frames that look alike: no value that sees the state can be better."""
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, penalty))
    alike = np.unique(states, return_inverse=True)[1]
    return (np.bincount(alike, weights=returns) / np.bincount(alike))[alike].astype(np.float32)


@pytest.mark.parametrize("penalty", [1.0, 2.0])
@pytest.mark.parametrize("horizon", [10, None])
def test_what_a_time_limit_cuts_off_is_not_called_good(horizon: int | None, penalty: float) -> None:
    table, outcomes, states = attempts_that_get_stuck(200, np.random.default_rng(0))
    values = calibrated_values(table, outcomes, states, penalty)
    bare = AdvantageConfig(horizon, 0.3, negative_failure_ends=False)
    formula, ruled = (
        label_frames(table, values, outcomes, penalty, config)
        for config in (bare, replace(bare, negative_failure_ends=True))
    )
    # Well calibrated: no state has an advantage on average. Yet of those stuck, the last ones have one.
    to_end = label_frames(table, values, outcomes, penalty, AdvantageConfig(negative_failure_ends=False))
    for state in np.unique(states):
        assert to_end.advantages[states == state].mean() == pytest.approx(0, abs=1e-4)
    left = table.lengths[table.episode_index] - 1 - table.frame_index
    stuck_at_the_end = (states == -1) & (left < 10)
    positive = formula.indicators == POSITIVE
    assert positive[stuck_at_the_end].mean() > 0.7
    assert (positive & stuck_at_the_end).sum() > 0.2 * positive.sum()
    # The numbers stay; the indicator goes to others, as many as were promised.
    np.testing.assert_array_equal(formula.advantages, ruled.advantages)
    moved = ruled.indicators == POSITIVE
    assert not moved[stuck_at_the_end].any()
    allowed = ~failure_ends(table, outcomes, replace(bare, negative_failure_ends=True))
    assert moved.sum() == pytest.approx(min(0.3 * len(table), allowed.sum()), rel=0.03)
    assert (ruled.reasons[positive & stuck_at_the_end] == Reason.NEGATIVE_FAILURE_END).all()


@given(episodes, st.floats(1.0, 5.0), horizons, st.integers(0, 2**32 - 1))
def test_a_positive_end_of_a_failure_was_held_for_lost_before(
    chosen: Chosen, penalty: float, config: AdvantageConfig, seed: int
) -> None:
    table, outcomes = table_of(chosen)
    values = -np.random.default_rng(seed).random(len(table), dtype=np.float32)
    found = label_frames(table, values, outcomes, penalty, config)
    surprising = failure_ends(table, outcomes, config) & (found.advantages > 0)
    task_of_frame = np.array(table.tasks)[table.episode_index]
    won = np.array([outcomes[i] == "success" for i in table.episode_ids])[table.episode_index]
    for task in (RED, BLUE):
        successes = found.returns[won & (task_of_frame == task)]
        if len(successes):
            assert (values[surprising & (task_of_frame == task)] < successes.min()).all()


def test_where_all_ends_are_barred_all_others_are_positive_and_none_is_promised() -> None:
    table = make_table([10, 10])
    values = -np.random.default_rng(0).random(20, dtype=np.float32)
    config = AdvantageConfig(positive_fraction=0.9)
    result = label_frames(table, values, {"e000": "success", "e001": "failure"}, 1.0, config)
    assert (result.indicators[:10] == POSITIVE).all() and (result.indicators[10:] == NEGATIVE).all()
    lost = label_frames(table, values, dict.fromkeys(table.episode_ids, "failure"), 1.0, config)
    assert (lost.indicators == NEGATIVE).all()
    assert np.isfinite(json.loads(json.dumps(list(lost.thresholds.values())))).all()
