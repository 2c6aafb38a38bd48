"""Returns: the reward summed by hand, scales per task, and no outcome where nobody gave one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.value_model.synthetic import BLUE, RED, make_table
from value_model.returns import episode_returns, frame_returns, task_scales, usable_outcomes

episodes = st.lists(
    st.tuples(
        st.integers(1, 30), st.sampled_from([RED, BLUE]), st.sampled_from(["success", "failure", None])
    ),
    min_size=1,
    max_size=6,
)


@given(episodes, st.floats(0.1, 3.0))
def test_returns_are_the_rewards_summed_to_the_end(
    chosen: list[tuple[int, str, str | None]], penalty: float
) -> None:
    table = make_table([n for n, _, _ in chosen], [t for _, t, _ in chosen])
    outcomes = {i: o for i, (_, _, o) in zip(table.episode_ids, chosen, strict=True)}
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, penalty))
    expected: list[float] = []
    for length, task, outcome in chosen:
        longest = max((n for n, t, o in chosen if t == task and o is not None), default=0)
        rewards = [-1.0] * (length - 1) + [0.0 if outcome == "success" else -penalty * longest]
        for t in range(length):
            known = outcome is not None
            expected.append(sum(rewards[t:]) / (longest + penalty * longest) if known else np.nan)
    assert returns.dtype == np.float32
    np.testing.assert_allclose(returns, expected, atol=1e-6)
    known_returns = returns[~np.isnan(returns)]
    assert (known_returns >= -1).all() and (known_returns <= 0).all()


def test_a_success_rises_to_zero_and_every_frame_of_a_failure_is_below_every_frame_of_a_success() -> None:
    table = make_table([10, 6])
    outcomes = {"e000": "failure", "e001": "success"}
    scales = task_scales(table, outcomes, 1.0)
    assert (scales[RED].longest, scales[RED].failure_penalty, scales[RED].normaliser) == (10, 10.0, 20.0)
    failed, won = np.split(frame_returns(table, outcomes, scales), [10])
    assert won[-1] == 0.0 and not np.signbit(won[-1])
    assert (np.diff(won) > 0).all() and (np.diff(failed) > 0).all()
    assert failed.max() == -0.5 and failed.min() == np.float32(-19 / 20)
    assert failed.max() < won.min()


def test_each_task_is_scaled_by_its_own_longest_labelled_episode() -> None:
    table = make_table([10, 40, 300], [RED, BLUE, RED])
    scales = task_scales(table, {"e000": "success", "e001": "failure", "e002": None}, 0.5)
    assert scales[RED].longest == 10
    assert scales[BLUE].normaliser == 60.0
    assert scales[BLUE].step_reward == -1 / 60


def test_unlabelled_excluded_and_truncated_episodes_have_no_outcome_whatever_their_label() -> None:
    labels = {"a": "success", "b": "failure", "c": "exclude", "d": None, "e": "failure", "f": "success"}
    assert usable_outcomes(labels, truncated=["e", "f"]) == {
        "a": "success",
        "b": "failure",
        "c": None,
        "d": None,
        "e": None,
        "f": None,
    }
    with pytest.raises(InputError, match="episode x has the label 'maybe'"):
        usable_outcomes({"x": "maybe"})


def test_an_episode_that_outcomes_do_not_name_has_no_return() -> None:
    table = make_table([3, 4])
    outcomes = {"e001": "success"}
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, 1.0))
    assert np.isnan(returns[:3]).all() and not np.isnan(returns[3:]).any()


def test_a_scale_of_other_episodes_is_refused_rather_than_exceeded() -> None:
    table = make_table([5, 9])
    scales = task_scales(table, {"e000": "success"}, 1.0)
    with pytest.raises(InputError, match="episode e001"):
        frame_returns(table, {"e000": "success", "e001": "failure"}, scales)


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan"), float("inf")])
def test_a_penalty_that_is_none_is_refused(penalty: float) -> None:
    with pytest.raises(InputError, match="failure_penalty"):
        task_scales(make_table([5]), {"e000": "failure"}, penalty)


def test_an_unknown_outcome_is_refused() -> None:
    table = make_table([5])
    with pytest.raises(InputError, match="outcome 'won'"):
        task_scales(table, {"e000": "won"}, 1.0)


def test_one_frame_is_enough() -> None:
    scale = task_scales(make_table([1]), {"e000": "success"}, 1.0)[RED]
    assert episode_returns(1, "success", scale).tolist() == [0.0]
    assert episode_returns(1, "failure", scale).tolist() == [-0.5]
