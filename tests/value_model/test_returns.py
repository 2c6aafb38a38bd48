"""Returns: the reward summed by hand, scales per task, and no outcome where nobody gave one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from tests.value_model.synthetic import BLUE, RED, make_table
from value_model.returns import Outcomes, episode_returns, frame_returns, task_scales, usable_outcomes

RATES = (5.0, 10.0, 15.0, 30.0)
episodes = st.lists(
    st.tuples(
        st.integers(1, 30),
        st.sampled_from([RED, BLUE]),
        st.sampled_from(["success", "failure", None]),
        st.sampled_from(RATES),
    ),
    min_size=1,
    max_size=6,
)
Chosen = list[tuple[int, str, str | None, float]]


def table_of(chosen: Chosen) -> tuple[FrameTable, Outcomes]:
    table = make_table(
        [n for n, _, _, _ in chosen], [t for _, t, _, _ in chosen], rates=[r for _, _, _, r in chosen]
    )
    return table, {i: o for i, (_, _, o, _) in zip(table.episode_ids, chosen, strict=True)}


def returns_by_hand(chosen: Chosen, penalty: float) -> list[float]:
    """The rewards of each episode, second by second, summed from every frame to the end."""
    expected: list[float] = []
    for length, task, outcome, rate in chosen:
        longest = max((n / r for n, t, o, r in chosen if t == task and o is not None), default=0.0)
        rewards = [-1.0 / rate] * (length - 1) + [0.0 if outcome == "success" else -penalty * longest]
        for t in range(length):
            known = outcome is not None
            expected.append(sum(rewards[t:]) / (longest + penalty * longest) if known else np.nan)
    return expected


@given(episodes, st.floats(0.1, 3.0))
def test_returns_are_the_rewards_summed_to_the_end(chosen: Chosen, penalty: float) -> None:
    table, outcomes = table_of(chosen)
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, penalty))
    assert returns.dtype == np.float32
    np.testing.assert_allclose(returns, returns_by_hand(chosen, penalty), atol=1e-6)
    known_returns = returns[~np.isnan(returns)]
    assert (known_returns >= -1).all() and (known_returns <= 0).all()


@given(episodes, st.floats(0.1, 3.0), st.sampled_from(RATES))
def test_a_rate_that_all_episodes_share_changes_nothing(chosen: Chosen, penalty: float, rate: float) -> None:
    table, outcomes = table_of(chosen)
    one, other = (replace(table, rates=np.full(len(chosen), r)) for r in (rate, 10.0))
    np.testing.assert_allclose(
        frame_returns(one, outcomes, task_scales(one, outcomes, penalty)),
        frame_returns(other, outcomes, task_scales(other, outcomes, penalty)),
        atol=1e-7,
    )


def test_equal_attempts_are_worth_the_same_at_any_rate() -> None:
    # Three seconds at 10 Hz and at 30 Hz: the same moments have the same return.
    table = make_table([31, 91, 40], rates=[10.0, 30.0, 10.0])
    outcomes: Outcomes = {"e000": "success", "e001": "success", "e002": "failure"}
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, 1.0))
    np.testing.assert_allclose(returns[31:122][::3], returns[:31], atol=1e-6)
    # Counted in frames, the second would have been called three times as slow.
    in_frames = replace(table, rates=np.full(3, 10.0))
    wrong = frame_returns(in_frames, outcomes, task_scales(in_frames, outcomes, 1.0))
    assert wrong[31] < 2 * wrong[0] < 0


@given(episodes, st.floats(1.0, 20.0))
def test_from_a_penalty_of_one_every_failure_lies_below_every_success(chosen: Chosen, penalty: float) -> None:
    table, outcomes = table_of(chosen)
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, penalty))
    for task in (RED, BLUE):
        ends: dict[str | None, list[float]] = {"success": [], "failure": []}
        for i, (_, of, outcome, _) in enumerate(chosen):
            if of == task and outcome is not None:
                ends[outcome] += returns[table.frames_of(i)].tolist()
        if ends["success"] and ends["failure"]:
            assert max(ends["failure"]) < min(ends["success"])


def red(outcome: str) -> st.SearchStrategy[tuple[int, str, str | None, float]]:
    return st.tuples(st.integers(1, 30), st.just(RED), st.just(outcome), st.sampled_from(RATES))


@given(red("success"), red("failure"), episodes, st.floats(0.05, 3.0))
def test_they_are_apart_exactly_if_the_penalty_exceeds_the_longest_success(
    success: tuple[int, str, str | None, float],
    failure: tuple[int, str, str | None, float],
    others: Chosen,
    penalty: float,
) -> None:
    chosen = [success, failure, *others]
    task = [(n, outcome, rate) for n, of, outcome, rate in chosen if of == RED and outcome is not None]
    won = [(n - 1) / rate for n, outcome, rate in task if outcome == "success"]
    c_fail = penalty * max(n / rate for n, _, rate in task)
    assume(abs(c_fail - max(won)) > 1e-3)
    table, outcomes = table_of(chosen)
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, penalty))
    of = {"success": [1.0], "failure": [-2.0]}
    for i, (_, task_name, outcome, _) in enumerate(chosen):
        if task_name == RED and outcome is not None:
            of[outcome] += returns[table.frames_of(i)].tolist()
    assert (max(of["failure"]) < min(of["success"])) == (c_fail > max(won))


def test_with_a_small_penalty_a_failure_still_lies_below_a_success_with_as_long_to_go() -> None:
    table = make_table([40, 40])
    outcomes: Outcomes = {"e000": "success", "e001": "failure"}
    won, lost = frame_returns(table, outcomes, task_scales(table, outcomes, 0.1)).reshape(2, 40)
    assert lost.max() > won.min(), "they overlap: the failure's end is above the success's start"
    np.testing.assert_allclose(won - lost, 0.1 / 1.1, atol=1e-6)


def test_a_take_over_ends_no_segment() -> None:
    policy, person = np.uint8(Source.POLICY), np.uint8(Source.INTERVENTION)
    sources = [np.where(np.arange(30) < 12, policy, person), np.full(30, policy)]
    table = make_table([30, 30], sources=sources)
    outcomes: Outcomes = {"e000": "success", "e001": "success"}
    taken, alone = frame_returns(table, outcomes, task_scales(table, outcomes, 1.0)).reshape(2, 30)
    np.testing.assert_array_equal(taken, alone)
    # The last frame before the take-over is neither the end of an episode nor that of a failure.
    assert taken[11] == pytest.approx(-18 / 60)


def test_a_success_rises_to_zero_and_every_frame_of_a_failure_is_below_every_frame_of_a_success() -> None:
    table = make_table([10, 6])
    outcomes = {"e000": "failure", "e001": "success"}
    scales = task_scales(table, outcomes, 1.0)
    # Ten frames at 10 Hz.
    assert (scales[RED].longest_s, scales[RED].failure_penalty_s, scales[RED].normaliser_s) == (1.0, 1.0, 2.0)
    failed, won = np.split(frame_returns(table, outcomes, scales), [10])
    assert won[-1] == 0.0 and not np.signbit(won[-1])
    assert (np.diff(won) > 0).all() and (np.diff(failed) > 0).all()
    assert failed.max() == -0.5 and failed.min() == np.float32(-19 / 20)
    assert failed.max() < won.min()


def test_each_task_is_scaled_by_its_own_longest_labelled_episode() -> None:
    table = make_table([10, 40, 300], [RED, BLUE, RED])
    scales = task_scales(table, {"e000": "success", "e001": "failure", "e002": None}, 0.5)
    assert scales[RED].longest_s == 1.0
    assert scales[BLUE].normaliser_s == 6.0
    assert scales[BLUE].step_reward(10.0) == -1 / 60


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
    assert episode_returns(1, 10.0, "success", scale).tolist() == [0.0]
    assert episode_returns(1, 10.0, "failure", scale).tolist() == [-0.5]
