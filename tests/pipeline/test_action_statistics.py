"""Statistics of actions: numpy's numbers, a sketch that merges exactly, scaling there and back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.action_sketch import RELATIVE_ERROR, ActionSketch, merged
from pipeline.action_statistics import (
    ActionStatistics,
    action_statistics,
    statistics_from_json,
    statistics_to_json,
)
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names

seeds = st.integers(0, 2**32 - 1)


def some_actions(seed: int, rows: int | None = None) -> np.ndarray:
    """Float32 (N, 7) of many magnitudes, with zeros, repeated values and a column that never changes."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 400)) if rows is None else rows
    actions = rng.normal(size=(rows, 7)) * 10.0 ** rng.integers(-6, 4, 7)
    actions[:, 0] = rng.integers(-2, 3, rows)
    actions[:, 1] = 0.3
    actions[rng.random(rows) < 0.3, 2] = 0
    actions[:, 6] = rng.random(rows) < 0.5
    return actions.astype(np.float32)


def sketch_of(*parts: np.ndarray) -> ActionSketch:
    sketch = ActionSketch("gen3", ActionSpace.TWIST)
    for part in parts:
        sketch.update(part)
    return sketch


@given(seeds)
@settings(max_examples=30)
def test_for_lerobot_they_are_numpys_to_the_last_bit(seed: int) -> None:
    actions = some_actions(seed)
    quantiles = np.quantile(actions, [0.01, 0.99], axis=0)
    expected = {
        "q01": quantiles[0],
        "q99": quantiles[1],
        "mean": actions.mean(0),
        "std": actions.std(0),
        "min": actions.min(0),
        "max": actions.max(0),
    }
    found = action_statistics(actions)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], torch.as_tensor(values, dtype=torch.float32))


@given(seeds)
@settings(max_examples=40)
def test_the_sketch_gives_the_exact_statistics(seed: int) -> None:
    actions = some_actions(seed)
    found = sketch_of(actions).statistics()
    exact = actions.astype(np.float64)
    np.testing.assert_array_equal(found.min, exact.min(0))
    np.testing.assert_array_equal(found.max, exact.max(0))
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-13, atol=1e-15 * np.abs(exact).max())
    np.testing.assert_allclose(found.std, exact.std(0), rtol=1e-9, atol=1e-9 * np.abs(exact).max())
    assert found.std[1] == 0
    assert found.q01[1] == found.q99[1] == np.float32(0.3)
    assert found.count == len(actions)


@given(seeds, st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.99, 1.0]))
@settings(max_examples=60)
def test_quantiles_are_as_near_as_promised(seed: int, q: float) -> None:
    actions = some_actions(seed).astype(np.float64)
    found = np.array(sketch_of(actions).quantiles(q))
    ordered = np.sort(actions, axis=0)
    rank = q * (len(actions) - 1)
    beside = np.maximum(np.abs(ordered[int(np.floor(rank))]), np.abs(ordered[int(np.ceil(rank))]))
    error = np.abs(found - np.quantile(actions, q, axis=0))
    assert (error <= RELATIVE_ERROR * beside * (1 + 1e-9)).all()


@given(seeds, st.lists(st.floats(0, 1), min_size=1, max_size=5))
@settings(max_examples=40)
def test_parts_in_any_order_merge_to_the_whole(seed: int, cuts: list[float]) -> None:
    rng = np.random.default_rng(seed)
    actions = some_actions(seed)
    whole = sketch_of(actions).statistics()
    shuffled = rng.permutation(actions)
    parts = np.split(shuffled, sorted(int(c * len(actions)) for c in cuts))
    assert sketch_of(*parts).statistics() == whole
    sketches = [pickle.loads(pickle.dumps(sketch_of(part))) for part in parts]
    for order in (sketches, sketches[::-1]):
        (together,) = merged(order)
        assert together.statistics() == whole
    left, right = merged(sketches[:2]), merged(sketches[2:])
    (grouped,) = merged([*right, *left])
    assert grouped.statistics() == whole


def test_many_blocks_are_as_one() -> None:
    actions = some_actions(1, rows=150_000)
    whole = sketch_of(actions)
    assert whole.statistics() == sketch_of(*np.array_split(actions, 7)).statistics()
    exact = np.quantile(actions.astype(np.float64), 0.99, axis=0)
    np.testing.assert_allclose(whole.quantiles(0.99), exact, rtol=1.01 * RELATIVE_ERROR)
    assert len(pickle.dumps(whole)) < 10_000_000


def test_robots_and_action_spaces_stay_apart() -> None:
    sketches = []
    for robot in ("b", "a", "b"):
        for space in (ActionSpace.TWIST, ActionSpace.ABSOLUTE_POSE):
            sketch = ActionSketch(robot, space)
            sketch.update(np.ones((2, len(action_names(space)))))
            sketches.append(sketch)
    found = [(s.robot, s.action_space, s.count) for s in merged(sketches)]
    assert found == [
        ("a", "absolute_pose", 2),
        ("a", "twist", 2),
        ("b", "absolute_pose", 4),
        ("b", "twist", 4),
    ]
    with pytest.raises(InputError, match="do not belong"):
        sketches[0].merge(sketches[1])


@given(seeds)
@settings(max_examples=40)
def test_scaling_lies_in_one_and_comes_back(seed: int) -> None:
    actions = some_actions(seed)
    statistics = ActionStatistics.from_actions(actions, "gen3")
    scaled = statistics.normalise(actions)
    assert scaled.dtype == np.float32
    assert (np.abs(scaled) <= 1).all()
    back = statistics.denormalise(scaled)
    low, high = np.array(statistics.q01), np.array(statistics.q99)
    expected = np.clip(actions, low, high)
    expected[:, 6] = actions[:, 6]
    tolerance = 1e-6 * np.maximum(np.abs(low), np.abs(high)) + 1e-6 * (high - low) + 1e-30
    tolerance[6] = 1e-6
    assert (np.abs(back - expected) <= tolerance).all()
    np.testing.assert_array_equal(scaled[:, 1], 0)
    np.testing.assert_array_equal(back[:, 1], np.float32(0.3))
    np.testing.assert_array_equal(scaled[:, 6], 2 * actions[:, 6] - 1)


def test_clipping_is_to_the_percentiles() -> None:
    actions = np.zeros((1001, 7))
    actions[:, 0] = np.arange(1001)
    statistics = ActionStatistics.from_actions(actions)
    scaled = statistics.normalise(actions)[:, 0]
    assert (scaled[:11] == -1).all() and (scaled[990:] == 1).all()
    assert scaled[500] == 0
    assert (np.diff(scaled[10:991]) > 0).all()
    assert statistics.denormalise(np.full(7, -1.0))[0] == 10


def test_missing_numbers_stay_missing() -> None:
    statistics = ActionStatistics.from_actions(some_actions(2))
    assert np.isnan(statistics.normalise(np.full((3, 7), np.nan))).all()


@given(seeds, st.text(max_size=8))
@settings(max_examples=20)
def test_json_holds_every_bit(seed: int, robot: str) -> None:
    actions = some_actions(seed)
    both = [sketch_of(actions).statistics(), ActionStatistics.from_actions(actions, robot)]
    assert statistics_from_json(statistics_to_json(both)) == both


@pytest.mark.parametrize("text", ["", "{}", "[{}]", '[{"robot": "a", "action_space": "twist", "count": 0}]'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"no action statistics|no action of"):
        statistics_from_json(text)


def test_actions_that_cannot_be_summarised_are_refused() -> None:
    sketch = sketch_of(some_actions(3))
    before = sketch.count
    bad = np.ones((3, 7))
    bad[1, 4] = np.nan
    with pytest.raises(InputError, match="frame 1"):
        sketch.update(bad)
    with pytest.raises(InputError, match="shape"):
        sketch.update(np.ones((3, 8)))
    assert sketch.count == before
    with pytest.raises(InputError, match="no action"):
        ActionSketch("gen3", ActionSpace.TWIST).statistics()
    with pytest.raises(InputError, match="finite"):
        ActionStatistics.from_actions(bad)
