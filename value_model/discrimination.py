"""Whether values tell successes from failures: pairs of episodes, at equal parts or at equal ages.

The area under the ROC curve is the chance that a success is valued above a failure, ties counting one
half (Mann & Whitney 1947; Hanley & McNeil 1982). Only pairs within one *stratum* are compared, a task or
a task and one operator, and the pairs of all strata are pooled. What is beyond chance is asked of shuffled
outcomes: within each stratum, whole episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from pipeline.episode import Outcome
from pipeline.frame_table import FrameTable
from value_model.returns import Outcomes, episode_outcomes

EPISODE_PARTS = (0.25, 0.5, 0.75)
# Moments that all of a task's episodes have a frame at must lie at most this part of a success apart.
_FINEST_PART = 0.1
# Rates are compared to a thousandth of a hertz, and ages up to rounding errors.
_MILLIHERTZ = 1000
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Contest:
    """The episodes that can be compared: E of them, with S scores each (at S moments of the episode).

    ``scores`` (S, E) float64, NaN where an episode has ended before that moment. ``won`` (E,) bool.
    ``stratum`` (E,) int64. ``rows`` (E,) int64: their positions in the table.
    """

    scores: np.ndarray
    won: np.ndarray
    stratum: np.ndarray
    rows: np.ndarray

    def auc(self, won: np.ndarray | None = None) -> np.ndarray:
        """The mean over the moments of the pooled AUC, ``(P,)``; NaN where there is no pair at any.

        ``won`` is ``(P, E)`` bool, other outcomes to judge the same scores by; default: the real ones.
        """
        outcomes = self.won[None] if won is None else won
        found = np.stack([pooled_auc(s, outcomes, self.stratum) for s in self.scores])
        known = ~np.isnan(found)
        total = np.where(known, found, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)

    def pairs(self) -> int:
        """How many pairs of a success and a failure share a stratum, at the moment that has most."""
        return max(
            sum(
                int((self.won & here).sum()) * int((~self.won & here).sum())
                for here in (~np.isnan(s) & (self.stratum == k) for k in np.unique(self.stratum))
            )
            for s in self.scores
        )

    def rarer(self) -> int:
        """How many episodes of the rarer outcome there are, over all strata."""
        return sum(
            min(int(self.won[here].sum()), int((~self.won[here]).sum()))
            for here in (self.stratum == k for k in np.unique(self.stratum))
        )

    def standard_error(self, rival: Contest | None = None) -> float:
        """That of :meth:`auc`, or of how far it exceeds ``rival``'s, other scores of the same episodes.

        From each episode's share of the pairs it is ordered rightly in (its placement; DeLong, DeLong &
        Clarke-Pearson 1988, eqs. 4 to 6), averaged over moments before it is squared, since an episode's
        moments share its luck.
        """
        own = _influence(self) - (0.0 if rival is None else _influence(rival))
        return float(np.sqrt((own**2).sum()))

    def shuffled(self, permutations: int, rng: np.random.Generator) -> np.ndarray:
        """AUCs of outcomes shuffled within strata, ``(permutations,)``: what chance gives."""
        won = np.repeat(self.won[None], permutations, axis=0)
        for k in np.unique(self.stratum):
            here = np.flatnonzero(self.stratum == k)
            won[:, here] = rng.permuted(won[:, here], axis=1)
        return self.auc(won)

    def p_value(self, permutations: int, rng: np.random.Generator) -> float:
        """How often shuffled outcomes give an AUC as high as the real ones; 1 where there is no pair."""
        observed = float(self.auc()[0])
        return 1.0 if np.isnan(observed) else p_value(observed, self.shuffled(permutations, rng))

    def within(self, factor: Sequence[str]) -> Contest:
        """The same, with pairs only of episodes that also share ``factor`` (one entry per table row)."""
        levels = np.unique(np.asarray(factor, dtype=object)[self.rows].astype(str), return_inverse=True)[1]
        refined = np.unique(np.stack([self.stratum, levels]), axis=1, return_inverse=True)[1]
        return Contest(self.scores, self.won, refined.reshape(-1).astype(np.int64), self.rows)


def contest(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    parts: Sequence[float] = EPISODE_PARTS,
    *,
    same_age: bool,
) -> Contest:
    """Sets every task's successes against its failures, by their values at ``parts`` of the episode.

    ``same_age``: at that part of the task's *median success* in all episodes that last longer, in seconds
    (see :func:`equal_ages`), so that the clock alone gives 0.5; otherwise at that part of each one's own
    length, where episodes that last longer are older and even the clock tells them apart. Tasks with one
    outcome only are left out.
    """
    found = np.array([o or "" for o in episode_outcomes(table, outcomes)], dtype=object)
    tasks = np.array(table.tasks, dtype=object)
    lengths, starts = np.asarray(table.lengths), np.asarray(table.starts)
    won = found == Outcome.SUCCESS
    rows, strata, scores = [], [], []
    for k, task in enumerate(dict.fromkeys(table.tasks)):
        here = np.flatnonzero((tasks == task) & (found != ""))
        if not won[here].any() or won[here].all():
            continue
        rows.append(here)
        strata.append(np.full(len(here), k))
        if same_age:
            frames = equal_ages(lengths[here], np.asarray(table.rates)[here], won[here], parts)
        else:
            frames = [(p * (lengths[here] - 1)).astype(np.int64) for p in parts]
        scores.append([_at(values, starts[here], lengths[here], frame) for frame in frames])
    if not rows:
        nothing = np.zeros(0, dtype=np.int64)
        return Contest(np.zeros((len(parts), 0)), nothing.astype(bool), nothing, nothing)
    chosen = np.concatenate(rows)
    return Contest(
        np.concatenate([np.stack(s) for s in scores], 1), won[chosen], np.concatenate(strata), chosen
    )


def auc_at(
    table: FrameTable, values: np.ndarray, outcomes: Outcomes, part: float, *, same_age: bool
) -> float | None:
    """The pooled AUC at one part of the episode, see :func:`contest`; ``None`` without a pair."""
    return known(contest(table, values, outcomes, (part,), same_age=same_age).auc()[0])


def p_value(observed: float, by_chance: np.ndarray) -> float:
    """The share of chance results that reach what was observed, itself counted (Phipson & Smyth 2010)."""
    usable = by_chance[~np.isnan(by_chance)]
    return float((1 + (usable >= observed - 1e-12).sum()) / (1 + len(usable)))


def known(number: float) -> float | None:
    """The number, or ``None`` for NaN: JSON has no word for it."""
    return None if np.isnan(number) else float(number)


def equal_ages(
    lengths: np.ndarray, rates: np.ndarray, won: np.ndarray, parts: Sequence[float]
) -> list[np.ndarray]:
    """The frames ``(E,)`` int64 at which one task's episodes are equally old: one array per part.

    An age is that part of the median success, in seconds, taken back to a moment at which every episode has
    a frame: a multiple of 1/r, r the greatest common divisor of the ``rates`` (10 and 30 Hz: every 0.1 s;
    10 and 25 Hz: every 0.2 s). Nearest frames would not do: a tenth of a frame more is enough for values that
    follow the clock to tell one rate from another, and with it perhaps the outcome. Rates of which there
    is no such r get the first frame at that age or after it, less than a frame late.
    """
    median = float(np.median(lengths[won] / rates[won]))
    common = float(np.gcd.reduce(np.rint(rates * _MILLIHERTZ).astype(np.int64))) / _MILLIHERTZ
    ticks = common if common * median * _FINEST_PART >= 1 else float(rates.min())
    ages = [np.floor(p * median * ticks + _ROUNDING) / ticks for p in parts]
    return [np.ceil(age * rates - _ROUNDING).astype(np.int64) for age in ages]


def _at(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, frame: np.ndarray) -> np.ndarray:
    reached = lengths > frame
    return np.where(reached, values[np.where(reached, starts + frame, starts)], np.nan).astype(np.float64)


def _influence(found: Contest) -> np.ndarray:
    """How far each episode moves the AUC, ``(E,)``: w · (its placement − the stratum's AUC) / √(n (n − 1)).

    n: the episodes of its outcome in the stratum; w: the stratum's share of all pairs.
    """
    moved, moments = np.zeros(len(found.won)), 0
    for score in found.scores:
        there = ~np.isnan(score)
        strata = [np.flatnonzero(there & (found.stratum == k)) for k in np.unique(found.stratum)]
        pairs = sum(int(found.won[s].sum()) * int((~found.won[s]).sum()) for s in strata)
        if not pairs:
            continue
        moments += 1
        for here in strata:
            won, lost = here[found.won[here]], here[~found.won[here]]
            if not len(won) or not len(lost):
                continue
            order = np.sort(score[lost])
            below = np.searchsorted(order, score[won], "left") + np.searchsorted(order, score[won], "right")
            beaten = np.sort(score[won])
            above = np.searchsorted(beaten, score[lost], "left") + np.searchsorted(
                beaten, score[lost], "right"
            )
            share = len(won) * len(lost) / pairs
            for rows, placed in ((won, below / (2 * len(lost))), (lost, 1 - above / (2 * len(won)))):
                spread = len(rows) * max(1, len(rows) - 1)
                moved[rows] += share * (placed - placed.mean()) / np.sqrt(spread)
    return moved / max(1, moments)


def pooled_auc(score: np.ndarray, won: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """The AUC over all pairs within a stratum, ``(P,)``; NaN without a pair.

    From scores ``(E,)`` (NaN: takes no part), P times outcomes ``(P, E)`` bool and strata ``(E,)``, by the
    sum of the winners' ranks.
    """
    right, pairs = np.zeros(len(won)), np.zeros(len(won))
    for k in np.unique(stratum):
        here = np.flatnonzero((stratum == k) & ~np.isnan(score))
        first = won[:, here].sum(axis=1)
        right += won[:, here] @ rankdata(score[here]) - first * (first + 1) / 2
        pairs += first * (len(here) - first)
    return np.where(pairs > 0, right / np.maximum(pairs, 1), np.nan)
