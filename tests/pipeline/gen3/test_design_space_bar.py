"""The bar of the design-space benchmark: a policy that does nothing, on many starts."""

from __future__ import annotations

from tests.benchmarks.design_space import _STILL_STARTS, nothing
from workflows.comparison import wilson_interval


def test_a_row_of_the_smoke_run_can_clear_the_bar() -> None:
    still = nothing(4)
    assert still.value == 0.0 and still == wilson_interval(0, 4)
    assert wilson_interval(2, 20).low > wilson_interval(0, _STILL_STARTS).high
