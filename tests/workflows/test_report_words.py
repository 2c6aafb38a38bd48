"""The report's sentences and choices: no more is claimed than was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workflows.report_samples import attempts
from workflows.comparison import Estimate, PairedDifference, performance
from workflows.paired_comparison import paired_difference
from workflows.promotion import as_decided, judge
from workflows.promotion_rule import PromotionRule
from workflows.report_episodes import STRIP_FRAMES, choose_episodes, runs, strip_indices
from workflows.report_tables import difference_rows, reason_rows
from workflows.report_words import duration, guard_that_holds, headline, number, signed, tiles, tone


def difference_of(low: float, high: float, p_value: float, rate: float = 0.1) -> PairedDifference:
    """A difference with those bounds of successes per hour and that p-value."""
    per_hour, points = Estimate((low + high) / 2, low, high), Estimate(rate, rate - 0.1, rate)
    return PairedDifference(per_hour, points, p_value, better=p_value < 0.05)


@pytest.mark.parametrize(
    ("low", "high", "p_value", "expected", "words", "verdict"),
    [
        (5.0, 40.0, 0.004, "good", "as much done as", "better"),
        (-40.0, -5.0, 0.996, "bad", "less done", "worse"),
        (-5.0, 40.0, 0.2, "unclear", "No clear difference", "not clear"),
        (0.0, 40.0, 0.045, "good", "surer than chance: p\u00a0=\u00a00.045", "better, only just"),
        (0.0, 40.0, 0.0499, "good", "surer than chance: p\u00a0<\u00a00.05", "better, only just"),
        (0.0, 40.0, 0.05, "unclear", "No clear difference", "not clear"),
    ],
)
def test_title_table_and_decision_rest_on_the_same_test(
    low: float, high: float, p_value: float, expected: str, words: str, verdict: str
) -> None:
    """Better is what is promoted; where the interval touches zero, it is said modestly."""
    difference = difference_of(low, high, p_value)
    shown = {"base": performance(attempts(0.4, 6)), "RECAP": performance(attempts(0.5, 6))}
    said = headline(shown, "RECAP", "base", difference)
    row = difference_rows({"RECAP vs base": difference})[0]
    throughput = tiles(shown, "RECAP", "base", {"RECAP vs base": difference})[1]
    assert said.tone == tone(difference) == row["tone"] == throughput.tone == expected
    assert words in said.sentence and row["verdict"] == verdict


@settings(deadline=None, max_examples=40)  # an example computes bootstraps, slow on a loaded machine
@given(
    rate=st.floats(0.0, 1.0),
    before=st.sampled_from([0.0, 0.4, 0.7]),
    seconds=st.floats(2.0, 8.0),
    early=st.booleans(),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    seed=st.integers(0, 5),
)
def test_the_title_never_contradicts_the_decision(
    rate: float, before: float, seconds: float, early: bool, loss: float, seed: int
) -> None:
    """Whatever the intervals say: a promoted candidate is better, and another one is not."""
    rule = PromotionRule(stop_early=early, round_starts=20, success_loss=loss)
    candidate, reference = attempts(rate, seconds, 60, seed), attempts(before, 6, 60, 9)
    verdict = judge(candidate, reference, "base", 60, rule, swaps=199)
    decision = verdict.decision()
    ran = verdict.starts
    difference = as_decided(paired_difference(candidate[:ran], reference[:ran]), decision)
    shown = {"base": performance(reference[:ran]), "RECAP": performance(candidate[:ran])}
    held = guard_that_holds(decision.promoted, decision.guards)
    said = headline(shown, "RECAP", "base", difference, held)
    assert decision.promoted == (said.tone == "good")
    assert ("guard rail holds it back" in said.sentence) == ("but on the same" in decision.reason)
    row = difference_rows({"RECAP vs base": difference})[0]
    assert (row["tone"] == "good") == (decision.promoted or bool(held and difference.better))


def test_faster_but_less_reliable_is_said_so() -> None:
    """What is kept back for its failures is neither praised nor called unclear."""
    shown = {"base": performance(attempts(0.4, 6)), "RECAP": performance(attempts(0.5, 6))}
    said = headline(shown, "RECAP", "base", difference_of(5, 40, 0.01, rate=-0.08))
    assert "faster but less reliable" in said.sentence and "8 points" in said.sentence
    assert said.tone == "unclear"


def test_barely_better_than_a_reference_that_never_succeeded() -> None:
    """The newcomer's report: nothing against 75 an hour, p = 0.045, and promoted."""
    shown = {"base": performance(attempts(0.0, 6)), "RECAP": performance(attempts(0.5, 6))}
    said = headline(shown, "RECAP", "base", difference_of(0, 150, 0.045)).sentence
    assert "where base never did (a little surer than chance" in said


def test_headline_when_the_reference_never_succeeded() -> None:
    """No ratio to nothing."""
    shown = {"base": performance(attempts(0.0, 6)), "RECAP": performance(attempts(0.5, 6))}
    difference = paired_difference(attempts(0.5, 6), attempts(0.0, 6))
    assert "where base never did" in headline(shown, "RECAP", "base", difference).sentence


def test_numbers_in_words() -> None:
    """Signs, thousands, missing values, times."""
    assert (number(-0.4), signed(0.04), signed(-2.6), signed(3)) == ("0", "0", "\u22123", "+3")
    assert number(12345) == "12\u202f345" and number(float("nan")) == "–"
    assert [duration(s) for s in (None, 9.31, 59.7, 742.4, 7260)] == [
        "–",
        "9.3 s",
        "1 min 0 s",
        "12 min 22 s",
        "2 h 1 min",
    ]


def test_typical_is_the_middle_one() -> None:
    """Of five successes the one of median length is shown."""
    lengths = {"a": 10, "b": 30, "c": 31, "d": 90, "e": 32}
    rows = [
        {
            "episode_id": e,
            "task": "t",
            "operator": "o",
            "outcome": "success",
            "frame": i,
            "source": 1,
            "value": -0.5,
        }
        for e, n in lengths.items()
        for i in range(n)
    ]
    assert choose_episodes(pd.DataFrame(rows)) == {"success": "c"}


def test_runs_and_strip_cover_an_episode() -> None:
    """Runs put together are the whole; the strip stays inside even an episode of one frame."""
    assert runs(np.array([1, 1, 2, 1])) == [(0, 2, 1), (2, 3, 2), (3, 4, 1)]
    assert runs(np.array([], int)) == []
    for length in (1, 7, 8, 41):
        picked = strip_indices(length)
        assert len(picked) == STRIP_FRAMES and picked == sorted(picked)
        assert min(picked) >= 0 and picked[-1] < length


def test_the_candidate_asked_for_negative_is_no_rival() -> None:
    """Beating itself is not shown among the improvements; beating another policy is."""
    names = ("base", "filtered BC", "RECAP", "RECAP, asked for negative")
    shown = {name: performance(attempts(0.4, 6)) for name in names}
    difference = paired_difference(attempts(0.5, 6), attempts(0.4, 6))
    compared = {f"RECAP vs {name}": difference for name in names if name != "RECAP"}
    titles = [tile.title for tile in tiles(shown, "RECAP", "base", compared)]
    assert [title.split("against ")[1] for title in titles] == ["base", "base", "filtered BC"]


def test_reasons_are_told_in_words_whether_stored_as_codes_or_names() -> None:
    """Codes and names of a reason read the same; unknown text is shown as it is."""
    by_code = reason_rows(pd.DataFrame({"reason": np.array([2, 2, 1], np.int8)}))
    by_name = reason_rows(pd.DataFrame({"reason": ["above_threshold", "above_threshold", "below_threshold"]}))
    assert by_code == by_name and by_code[0][0].startswith("positive: advantage above")
    assert reason_rows(pd.DataFrame({"reason": ["by hand"]})) == [("by hand", "1", "100\u00a0%")]
