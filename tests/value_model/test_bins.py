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
    # The two sums run in opposite orders over float32 numbers: they differ by a rounding or two.
    assert one.item() + 0.5 == pytest.approx(-(other.item() + 0.5), abs=5e-7)


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


def expectation_by_hand(logits: list[float]) -> float:
    """Softmax and mean in Python's floats, term by term."""
    highest = max(logits)
    weights = [math.exp(x - highest) for x in logits]
    centres = [-1.0 + i / (len(logits) - 1) for i in range(len(logits))]
    return math.fsum(w * c for w, c in zip(weights, centres, strict=True)) / math.fsum(weights)


@given(
    st.integers(0, 2**32 - 1), st.floats(0.0, 40.0), st.sampled_from([torch.float32, torch.bfloat16]), counts
)
def test_the_expectation_is_the_mean_over_bins_whatever_the_logits_type(
    seed: int, size: float, dtype: torch.dtype, count: int
) -> None:
    logits = torch.as_tensor(np.random.default_rng(seed).normal(0, size, (4, count))).to(dtype)
    found = ValueBins(count).expectation(logits)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), [expectation_by_hand(r) for r in logits.tolist()], atol=2e-6)
    assert (found >= -1).all() and (found <= 0).all()


@given(st.lists(st.floats(-20, 20, width=16), min_size=BIN_COUNT // 2, max_size=BIN_COUNT // 2))
def test_symmetry_is_exact_in_bfloat16_too(half: list[float]) -> None:
    logits = torch.tensor([*half, 0.0, *reversed(half)], dtype=torch.bfloat16)[None]
    assert ValueBins().expectation(logits).item() == -0.5
    mirrored = torch.tensor([*half, 1.0, *half], dtype=torch.bfloat16)[None]
    one, other = ValueBins().expectation(mirrored), ValueBins().expectation(mirrored.flip(-1))
    assert one.item() + 0.5 == pytest.approx(-(other.item() + 0.5), abs=5e-7)


def test_probabilities_of_few_digits_are_summed_with_many() -> None:
    probabilities = torch.full((1, BIN_COUNT), 1 / BIN_COUNT)
    probabilities[0, :50] = 0
    few = ValueBins().expectation_of(probabilities.bfloat16())
    exact = probabilities.bfloat16().double()
    # About the middle: what rounded probabilities lack of 1 counts as -0.5.
    wanted = -0.5 + (exact * (ValueBins().centres.double() + 0.5)).sum().item()
    assert few.dtype == torch.float32 and few.item() == pytest.approx(wanted, abs=1e-6)
    assert ValueBins().expectation_of(probabilities.double()).dtype == torch.float64


@given(values, counts, st.floats(0.3, 4.0))
def test_targets_are_distributions(chosen: list[float], count: int, deviation: float) -> None:
    bins = ValueBins(count)
    for targets in (bins.two_hot(torch.tensor(chosen)), bins.hl_gauss(torch.tensor(chosen), deviation)):
        assert (targets >= 0).all()
        np.testing.assert_allclose(targets.double().sum(1).numpy(), 1.0, atol=1e-5)


@given(st.floats(-1.0, -0.5, width=32), st.floats(0.5, 4.0))
def test_mirrored_values_have_mirrored_gaussians(value: float, deviation: float) -> None:
    bins = ValueBins(21)
    one = bins.hl_gauss(torch.tensor([value], dtype=torch.float64), deviation)
    other = bins.hl_gauss(torch.tensor([-1.0 - value], dtype=torch.float64), deviation)
    np.testing.assert_allclose(one.flip(-1).numpy(), other.numpy(), atol=1e-6)
