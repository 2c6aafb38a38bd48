"""Who drives: at once the person, and the policy again only after a while without input."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collectors.take_over import TakeOver
from pipeline.errors import InputError


def test_input_takes_over_at_once_and_letting_go_hands_back_later() -> None:
    """Pauses shorter than the release time do not give the arm away."""
    take_over = TakeOver(0.5)
    assert not take_over.update(False, now=0.0)
    assert take_over.update(True, now=0.1)
    assert take_over.update(False, now=0.4)
    assert take_over.update(True, now=0.5)
    assert take_over.update(False, now=0.99)
    assert take_over.driving
    assert not take_over.update(False, now=1.0)
    assert not take_over.driving


def test_a_release_time_of_zero_hands_back_with_the_first_look_without_input() -> None:
    """For those who want it so."""
    take_over = TakeOver(0.0)
    assert take_over.update(True, now=1.0)
    assert not take_over.update(False, now=1.0)


def test_reset_hands_back() -> None:
    """A new episode does not begin in the middle of a take-over."""
    take_over = TakeOver(5.0)
    take_over.update(True, now=0.0)
    take_over.reset()
    assert not take_over.driving
    assert not take_over.update(False, now=0.1)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_release_time_that_makes_no_sense_is_refused(bad: float) -> None:
    """Infinite would never hand back."""
    with pytest.raises(InputError, match="release_after_s"):
        TakeOver(bad)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=50),
    st.floats(0.0, 2.0),
)
def test_it_is_the_person_exactly_while_the_last_input_is_fresh(
    steps: list[tuple[float, bool]], release_after_s: float
) -> None:
    """Whatever the order and spacing of looks."""
    take_over = TakeOver(release_after_s)
    now, last = 0.0, -math.inf
    for gap, active in steps:
        now += gap
        last = now if active else last
        assert take_over.update(active, now) == (active or now - last < release_after_s)
