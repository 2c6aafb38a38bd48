"""The sequential test: against a slow one from the definition; its errors, its power, what it saves."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from tests.workflows.promotion_samples import BASE, RECAP, SLOW_AND_SURE, Skill, evaluations
from workflows.comparison import Attempt
from workflows.promotion import BETTER, GO_ON, verdict_of_look
from workflows.promotion_looks import Standing, _Paths, _signs, standings
from workflows.promotion_rule import PromotionRule

EARLY = PromotionRule(stop_early=True)

outcomes = st.tuples(st.booleans(), st.integers(1, 80).map(lambda tenths: tenths / 10))


def attempts(rows: list[tuple[bool, float]]) -> list[Attempt]:
    """One attempt a row, on consecutive starts."""
    return [Attempt("t", i, won, round(10 * spent), spent) for i, (won, spent) in enumerate(rows)]


def slow_standings(
    candidate: list[Attempt], reference: list[Attempt], looks: list[int], alpha: float, swaps: int
) -> list[tuple[float, bool, bool]]:
    """p-value, better and worse at each look: every path is the evaluation with results really exchanged."""
    signs = np.stack([_signs(i, swaps) for i in range(looks[-1])])
    struck: list[set[int]] = [set(), set()]
    found = []
    for look in looks:
        pooled = [*candidate[:look], *reference[:look]]
        rate = sum(a.success for a in pooled) / sum(a.seconds for a in pooled)
        sums = []
        for path in range(swaps + 1):
            swapped = [
                (c, r) if signs[i, path] == 1 else (r, c)
                for i, (c, r) in enumerate(zip(candidate[:look], reference[:look], strict=True))
            ]
            excess = sum(c.success - rate * c.seconds for c, _ in swapped)
            sums.append(round(excess - sum(r.success - rate * r.seconds for _, r in swapped), 9))
        for side, out in zip((1, -1), struck, strict=True):
            room = int(alpha * look / looks[-1] * (swaps + 1) + 1e-9)
            for value in sorted({side * s for p, s in enumerate(sums) if p not in out}, reverse=True):
                tied = {p for p, s in enumerate(sums) if side * s == value and p not in out}
                if len(out) + len(tied) > room:
                    break
                out.update(tied)
        p = sum(s >= sums[0] for s in sums) / (swaps + 1)
        found.append((p, 0 in struck[0], 0 in struck[1] and 0 not in struck[0]))
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(outcomes, outcomes), min_size=6, max_size=12), st.sampled_from([0.05, 0.2, 0.4]))
def test_it_is_the_test_of_its_definition(
    pairs: list[tuple[tuple[bool, float], tuple[bool, float]]], alpha: float
) -> None:
    candidate, reference = attempts([c for c, _ in pairs]), attempts([r for _, r in pairs])
    looks = [3, len(pairs) - 1, len(pairs)]
    found = standings(candidate, reference, looks, alpha, swaps=59)
    expected = slow_standings(candidate, reference, looks, alpha, swaps=59)
    assert [(pytest.approx(one.p), one.better, one.worse) for one in found] == expected


def test_with_all_swaps_no_more_than_the_error_is_ever_called_better() -> None:
    """Exact: of all 2⁸ equally likely results of one evaluation at most 5 % are better, over three looks."""
    rng = np.random.default_rng(3)
    pairs = [((bool(rng.random() < 0.6), 5.0), (bool(rng.random() < 0.6), 7.0)) for _ in range(8)]
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    z = np.array([c[0] - r[0] - 0.1 * (c[1] - r[1]) for c, r in pairs])
    called = 0
    for own in signs:
        paths = _Paths(len(signs))
        for look, allowed in ((4, 0.5), (6, 0.75), (8, 1.0)):
            # The observed path first; the others are all swaps of it, itself among them.
            sums = np.round((signs[:, :look] * own[:look]) @ z[:look], 9)
            paths.strike(sums, 0.05 * allowed)
        called += bool(paths.struck[int(np.flatnonzero((signs == 1).all(axis=1))[0])])
    assert 0 < called <= 0.05 * len(signs)


def runs(candidate: Skill, reference: Skill, times: int, seed: int) -> list[tuple[str, int]]:
    """How evaluations of up to 200 starts ended, and after how many."""
    rng = np.random.default_rng(seed)
    looks = EARLY.looks(200)

    def end(found: list[Standing]) -> tuple[str, int]:
        for one in found:
            word = verdict_of_look(one, float(one.better), (), one.starts == 200, EARLY)
            if word != GO_ON:
                return word, one.starts
        raise AssertionError("it never ended")

    return [
        end(standings(*evaluations(candidate, reference, 200, rng), looks, EARLY.significance, swaps=399))
        for _ in range(times)
    ]


@pytest.mark.parametrize(
    ("candidate", "reference"), [(BASE, BASE), (SLOW_AND_SURE, BASE), (BASE, SLOW_AND_SURE)]
)
def test_one_that_is_no_better_is_seldom_called_better(candidate: Skill, reference: Skill) -> None:
    """5 % at most; of 250 evaluations 24 and more would be called better by chance 1 time in 1,000."""
    ended = Counter(word for word, _ in runs(candidate, reference, 250, seed=7))
    assert ended[BETTER] < 24


def test_what_is_clearly_better_is_found_at_once() -> None:
    """The demo's effect, 453 to 728 an hour: found nearly always, in a third of the starts."""
    ended = runs(RECAP, BASE, 100, seed=8)
    assert sum(word == BETTER for word, _ in ended) >= 98
    assert np.mean([starts for _, starts in ended]) < 80


def test_what_is_worse_or_no_better_is_given_up_early() -> None:
    """The reverse ends at the first look or two; no difference takes about half of the starts."""
    worse = runs(BASE, RECAP, 100, seed=9)
    assert BETTER not in {word for word, _ in worse} and np.mean([starts for _, starts in worse]) < 50
    assert np.mean([starts for _, starts in runs(BASE, BASE, 100, seed=10)]) < 140


def test_rounds_do_not_change_what_is_drawn() -> None:
    """Two looks more change neither the p-value nor the paths at the others."""
    candidate, reference = evaluations(RECAP, BASE, 60, np.random.default_rng(0))
    once = standings(candidate, reference, [60], 0.05, swaps=99)
    thrice = standings(candidate, reference, [20, 40, 60], 0.05, swaps=99)
    assert once[-1].p == thrice[-1].p
    before = standings(candidate[:40], reference[:40], [20, 40, 60], 0.05, swaps=99)
    assert before == thrice[:2]


def test_policies_that_did_the_same_are_neither_better_nor_worse() -> None:
    """All sums are equal: no path stands out, whatever error may be spent."""
    same = attempts([(True, 3.0), (False, 8.0)] * 10)
    (found,) = standings(same, same, [20], 0.05)
    assert (found.p, found.bound, found.better, found.worse) == (1.0, 0.0, False, False)
    never = attempts([(False, 8.0)] * 20)
    assert standings(never, never, [20], 0.05)[0].p == 1.0


def test_the_chance_is_what_the_starts_to_come_would_bring() -> None:
    """Against drawing the rest, with a drift drawn from what the starts so far leave open."""
    candidate, reference = evaluations(RECAP, BASE, 200, np.random.default_rng(4))
    found = standings(candidate[:40], reference[:40], [40, 100], 0.05)[0]
    pooled = [*candidate[:40], *reference[:40]]
    rate = sum(a.success for a in pooled) / sum(a.seconds for a in pooled)
    z = np.array(
        [
            c.success - r.success - rate * (c.seconds - r.seconds)
            for c, r in zip(candidate[:40], reference[:40], strict=True)
        ]
    )
    spread = np.sqrt((z**2).mean())
    rng = np.random.default_rng(0)
    drift = z.mean() + spread / np.sqrt(40) * rng.normal(size=200_000)
    ended = z.sum() + 60 * drift + spread * np.sqrt(60) * rng.normal(size=200_000)
    assert found.chance == pytest.approx(np.mean(ended > 1.6449 * spread * 10), abs=0.005)


def test_other_starts_are_refused() -> None:
    with pytest.raises(InputError, match="same starts"):
        standings(attempts([(True, 1.0)]), attempts([(True, 1.0)] * 2), [1], 0.05)
