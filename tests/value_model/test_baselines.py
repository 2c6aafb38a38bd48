"""The cheap baselines: each knows its one thing and nothing else, out of fold, and is fast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.value_model.synthetic import BLUE, RED, SMALL, make_table, picture_episode, picture_table
from value_model.baselines import Constant, OutcomeOnly, TimeOnly, score_time_only
from value_model.calibration import measure_quality
from value_model.comparators import BASELINES, Comparator
from value_model.comparators_chance import fit_chance
from value_model.folds import assign_folds
from value_model.returns import Outcomes, frame_returns, task_scales
from value_model.thumbnails import thumbnails

ALL: tuple[Comparator, ...] = (*BASELINES, Constant())
outcome_lists = st.lists(
    st.tuples(
        st.integers(1, 12), st.sampled_from([RED, BLUE]), st.sampled_from(["success", "failure", None])
    ),
    min_size=4,
    max_size=9,
)


@pytest.mark.parametrize("comparator", ALL, ids=lambda c: c.name)
def test_values_are_in_range_repeatable_and_described(comparator: Comparator) -> None:
    table, outcomes = picture_table(10, np.random.default_rng(0), honest=True, tasks=(RED, BLUE))
    values = comparator.score(table, outcomes, SMALL)
    assert values.shape == (len(table),) and values.dtype == np.float32
    assert (values >= -1).all() and (values <= 0).all()
    np.testing.assert_array_equal(comparator.score(table, outcomes, SMALL), values)
    assert comparator.name == comparator.name.lower() and len(comparator.sentence.split()) > 4
    assert not comparator.sentence.endswith(".")


@pytest.mark.parametrize("comparator", ALL, ids=lambda c: c.name)
def test_an_episodes_own_outcome_has_no_part_in_its_values(comparator: Comparator) -> None:
    rng = np.random.default_rng(1)
    won = [i % 2 == 0 for i in range(12)]
    # Of equal length, so that outcomes change no scale.
    table = make_table([14] * 12, images=[picture_episode(14, w, rng) for w in won])
    outcomes = {f"e{i:03d}": "success" if w else "failure" for i, w in enumerate(won)}
    # One success and one failure of the same fold change places, under a seed that leaves the folds alone.
    turned = outcomes | {"e002": "failure", "e005": "success"}

    def same_folds(seed: int) -> bool:
        folds = assign_folds(table, outcomes, 2, seed)
        return folds == assign_folds(table, turned, 2, seed) and folds["e002"] == folds["e005"]

    config = replace(SMALL, seed=next(seed for seed in range(500) if same_folds(seed)))
    before, after = comparator.score(table, outcomes, config), comparator.score(table, turned, config)
    folds = assign_folds(table, outcomes, 2, config.seed)
    held = np.isin(
        table.episode_index, [i for i, e in enumerate(table.episode_ids) if folds[e] == folds["e002"]]
    )
    np.testing.assert_array_equal(before[held], after[held])
    if comparator.name == "outcome only":
        assert (before[~held] != after[~held]).any(), "for the other fold it does count"


@settings(deadline=None, max_examples=40)
@given(outcome_lists, st.integers(0, 5))
def test_time_only_is_the_mean_return_at_about_that_age(
    chosen: list[tuple[int, str, str | None]], seed: int
) -> None:
    table = make_table([n for n, _, _ in chosen], [t for _, t, _ in chosen])
    outcomes = {i: o for i, (_, _, o) in zip(table.episode_ids, chosen, strict=True)}
    if sum(o is not None for o in outcomes.values()) < 2:
        return
    config = replace(SMALL, seed=seed)
    folds = assign_folds(table, outcomes, 2, seed)
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, config.failure_penalty))

    def mean_at(age: int, task: str, fold: int) -> float:
        known = [
            (t, float(returns[int(table.starts[i]) + t]))
            for i, (n, of, o) in enumerate(chosen)
            if of == task and o is not None and folds[table.episode_ids[i]] != fold
            for t in range(n)
        ]
        oldest = max((t for t, _ in known), default=None)
        if oldest is None:
            return -0.5
        near = [value for t, value in known if abs(t - min(age, oldest)) <= 2]
        return sum(near) / len(near)

    expected = []
    for i, (n, task, _) in enumerate(chosen):
        own = folds.get(table.episode_ids[i])
        for t in range(n):
            parts = [mean_at(t, task, f) for f in range(2)] if own is None else [mean_at(t, task, own)]
            expected.append(sum(parts) / len(parts))
    np.testing.assert_allclose(TimeOnly().score(table, outcomes, config), expected, atol=1e-5)


def test_time_only_goes_by_seconds_and_not_by_frames() -> None:
    # Every other episode was recorded at twice the rate: 20 frames, and as many seconds.
    table = make_table([10, 20] * 8, rates=[10.0, 20.0] * 8)
    outcomes: Outcomes = dict.fromkeys(table.episode_ids, "success")
    values = TimeOnly().score(table, outcomes, SMALL)
    slow, fast = values[:10], values[10:30]
    # At most a frame and a half of the slow recording apart: it has no finer ages.
    assert np.abs(np.repeat(slow, 2) - fast).max() <= 1.5 / 20
    by_frames = TimeOnly().score(replace(table, rates=np.full(16, 10.0)), outcomes, SMALL)
    assert np.abs(np.repeat(by_frames[:10], 2) - by_frames[10:30]).max() > 0.1


def test_time_only_cannot_tell_a_success_from_a_failure_of_its_age() -> None:
    table, outcomes = picture_table(40, np.random.default_rng(2), honest=True)
    quality = measure_quality(table, score_time_only(table, outcomes, SMALL), outcomes, 1.0)
    assert quality.auc_same_age["50%"] == pytest.approx(0.5, abs=0.2)


def test_outcome_only_tells_how_it_ends_and_not_how_long_it_takes() -> None:
    table, outcomes = picture_table(60, np.random.default_rng(3), honest=True)
    values = OutcomeOnly().score(table, outcomes, SMALL)
    quality = measure_quality(table, values, outcomes, 1.0)
    assert quality.auc_same_age["25%"] is not None and quality.auc_same_age["25%"] > 0.9
    # It says about the same throughout an episode, though the picture shows the progress.
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, 1.0))
    within = [
        (np.ptp(values[table.frames_of(i)]), np.ptp(returns[table.frames_of(i)]))
        for i in range(len(table.episode_ids))
    ]
    told, true = np.mean(within, axis=0)
    assert told < true / 2


def test_outcome_only_lies_between_the_means_of_both_ends() -> None:
    table, outcomes = picture_table(16, np.random.default_rng(4), honest=False)
    values = OutcomeOnly().score(table, outcomes, SMALL)
    folds = assign_folds(table, outcomes, 2, SMALL.seed)
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, 1.0))
    for fold in range(2):
        ends = [
            np.mean(
                np.concatenate(
                    [
                        returns[table.frames_of(i)]
                        for i, e in enumerate(table.episode_ids)
                        if folds[e] != fold and outcomes[e] == outcome
                    ]
                )
            )
            for outcome in ("failure", "success")
        ]
        held = np.isin(table.episode_index, [i for i, e in enumerate(table.episode_ids) if folds[e] == fold])
        assert (values[held] >= ends[0] - 1e-6).all() and (values[held] <= ends[1] + 1e-6).all()


def test_outcome_only_sees_every_camera_and_the_state() -> None:
    rng = np.random.default_rng(5)
    won = [i % 2 == 0 for i in range(24)]
    outcomes: Outcomes = {f"e{i:03d}": "success" if w else "failure" for i, w in enumerate(won)}
    grey = np.full((10, 2, 24, 24, 3), 90, np.uint8)
    pictures = [grey.copy() for _ in won]
    for picture, w in zip(pictures, won, strict=True):
        picture[:, 1, :12, :, 1 if w else 0] = 200 + rng.integers(0, 20)
    second = make_table([10] * 24, images=pictures)
    blind = make_table([10] * 24, images=[grey] * 24)
    felt = replace(blind, state=blind.state.copy())
    felt.state[:, 3] = np.repeat(won, 10) + rng.normal(0, 0.1, 240)
    auc = [
        measure_quality(t, OutcomeOnly().score(t, outcomes, SMALL), outcomes, 1.0).auc_same_age["50%"]
        for t in (second, felt, blind)
    ]
    assert auc[0] == 1.0 and auc[1] == 1.0 and auc[2] == pytest.approx(0.5, abs=0.01)


def test_a_task_with_one_outcome_or_none_has_a_value_too() -> None:
    table = make_table([8] * 8, [RED] * 4 + [BLUE] * 4)
    outcomes: Outcomes = dict.fromkeys(table.episode_ids[:4], "success")
    for comparator in ALL:
        values = comparator.score(table, outcomes, SMALL)
        assert np.isfinite(values).all()
        np.testing.assert_allclose(values[32:], -0.5)
        assert (values[:32] > -0.5).all()


def test_the_chance_is_what_a_regression_on_standardised_features_says() -> None:
    rng = np.random.default_rng(6)
    features = rng.normal(3.0, [0.5, 20.0, 1e-9], size=(400, 3)).astype(np.float32)
    won = features[:, 0] + rng.normal(0, 0.5, 400) > 3.0
    fitted = np.arange(300)
    chance = fit_chance(features.__getitem__, won, fitted, data_weight=1.0)(np.arange(300, 400))
    weights, offset = np.zeros(3), 0.0
    mean, scale = features[:300].mean(0), np.maximum(features[:300].std(0), 1e-3)
    scaled = (features - mean) / scale
    for _ in range(4000):  # plain gradient descent on 0.5 |w|² + the mean loss
        error = 1 / (1 + np.exp(-(scaled[:300] @ weights + offset))) - won[:300]
        weights -= 0.2 * (weights + scaled[:300].T @ error / 300)
        offset -= 0.2 * error.mean()
    np.testing.assert_allclose(chance, 1 / (1 + np.exp(-(scaled[300:] @ weights + offset))), atol=2e-3)
    assert (
        fit_chance(features.__getitem__, np.ones(400, bool), fitted, 1.0)(np.arange(3)).tolist() == [1.0] * 3
    )


def test_thumbnails_are_the_means_of_squares_of_each_camera() -> None:
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (5, 2, 24, 24, 3), dtype=np.uint8)
    small = thumbnails(make_table([5], images=[images]), side=6).reshape(5, 2, 6, 6, 3)
    for frame, camera, row, column in rng.integers(0, [5, 2, 6, 6], (50, 4)):
        square = images[frame, camera, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        np.testing.assert_allclose(small[frame, camera, row, column], square.mean((0, 1)), atol=0.51)
