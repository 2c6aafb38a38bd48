"""Targets and expectations: round trips, a slow reference, symmetry, and refusal of what does not fit."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from value_model.bins import BIN_COUNT, ValueBins

values = st.lists(st.floats(-1.0, 0.0, width=32), min_size=1, max_size=8)
counts = st.sampled_from([3, 11, BIN_COUNT])


def two_hot_by_hand(value: float, count: int) -> list[float]:
    """One value's target, bin by bin."""
    width = 1.0 / (count - 1)
    return [max(0.0, 1.0 - abs(value - (-1.0 + i * width)) / width) for i in range(count)]


@given(values, counts)
def test_two_hot_is_the_triangle_around_each_value(chosen: list[float], count: int) -> None:
    targets = ValueBins(count).two_hot(torch.tensor(chosen))
    assert targets.shape == (len(chosen), count) and targets.dtype == torch.float32
    expected = [two_hot_by_hand(v, count) for v in torch.tensor(chosen).tolist()]
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-5)


@given(values, counts)
def test_two_hot_targets_give_their_value_back(chosen: list[float], count: int) -> None:
    bins = ValueBins(count)
    back = bins.expectation_of(bins.two_hot(torch.tensor(chosen)))
    np.testing.assert_allclose(back.numpy(), np.array(chosen, np.float32), atol=1e-6)


@given(st.lists(st.floats(-0.9375, -0.0625, width=32), min_size=1, max_size=8), st.floats(0.3, 3.0))
def test_hl_gauss_gives_values_away_from_the_ends_back(chosen: list[float], deviation: float) -> None:
    bins = ValueBins()
    targets = bins.hl_gauss(torch.tensor(chosen), deviation)
    np.testing.assert_allclose(targets.sum(1).numpy(), 1.0, atol=1e-5)
    # A narrow Gaussian between two centres is quantised: it may be off by less than half a bin.
    tolerance = bins.width / 2 if deviation < 0.75 else 2e-4
    np.testing.assert_allclose(bins.expectation_of(targets).numpy(), chosen, atol=tolerance)


@given(values, st.floats(0.5, 3.0))
def test_hl_gauss_is_the_gaussian_integrated_over_each_bin(chosen: list[float], deviation: float) -> None:
    bins = ValueBins(21)
    sigma = deviation * bins.width
    for value, target in zip(chosen, bins.hl_gauss(torch.tensor(chosen), deviation).tolist(), strict=True):
        edges = [-1.0 + (i - 0.5) * bins.width for i in range(22)]
        below = [0.5 * (1 + math.erf((e - value) / (sigma * math.sqrt(2)))) for e in edges]
        mass = [(b - a) / (below[-1] - below[0]) for a, b in pairwise(below)]
        np.testing.assert_allclose(target, mass, atol=1e-5)


@given(st.lists(st.floats(-20, 20, width=32), min_size=BIN_COUNT // 2, max_size=BIN_COUNT // 2))
def test_a_symmetric_distribution_is_worth_exactly_the_middle(half: list[float]) -> None:
    logits = torch.tensor([*half, 0.0, *reversed(half)])[None]
    assert ValueBins().expectation(logits).item() == -0.5


@given(st.lists(st.floats(-8, 8, width=32), min_size=11, max_size=11))
def test_mirrored_distributions_have_mirrored_values(logits: list[float]) -> None:
    bins = ValueBins(11)
    probabilities = torch.softmax(torch.tensor(logits), 0)
    one, other = bins.expectation_of(probabilities), bins.expectation_of(probabilities.flip(0))
    assert one.item() + 0.5 == pytest.approx(-(other.item() + 0.5), abs=1e-7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.01, -1.01])
def test_a_value_outside_the_support_is_refused_and_not_clipped(bad: float) -> None:
    for encode in (ValueBins().two_hot, ValueBins().hl_gauss):
        with pytest.raises(InputError, match="normaliser"):
            encode(torch.tensor([-0.5, bad]))


def test_bins_that_have_no_middle_and_gaussians_without_width_are_refused() -> None:
    with pytest.raises(InputError, match="odd"):
        ValueBins(200)
    with pytest.raises(InputError, match="positive"):
        ValueBins().hl_gauss(torch.tensor([-0.5]), 0.0)
    with pytest.raises(InputError, match="dimension"):
        ValueBins().two_hot(torch.zeros(2, 2))


def test_centres_reach_both_ends() -> None:
    centres = ValueBins().centres
    assert len(centres) == BIN_COUNT
    assert (centres[0].item(), centres[-1].item()) == (-1.0, 0.0)
