"""How good is a policy, and how much better than another: values with their intervals.

An evaluation is a list of :class:`Attempt`; two evaluations are comparable when they ran the same starts in
the same order. Success has a Wilson interval (Wilson 1927, eq. for the score interval); successes per hour
and paired differences have percentile bootstrap intervals (Efron 1979) over starts. The intervals are those
of a number of starts that was fixed beforehand: where an evaluation stopped early, they lean a little towards
what stopped it. Whether a policy is better than another beyond chance does not rest on them but on
the test of :mod:`workflows.promotion_looks`; :mod:`workflows.paired_comparison` has both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError

SECONDS_PER_HOUR = 3600.0
Z_95 = 1.959963984540054
BOOTSTRAP_RESAMPLES = 4000


@dataclass(frozen=True)
class Attempt:
    """One evaluated start: which, what happened, and how long it took in robot seconds.

    ``interventions``: how often a person took over. In simulation nobody does; there it is 1 where a scripted
    supervisor who only watched would have taken over at least once, and 0 otherwise.
    """

    task: str
    start_seed: int
    success: bool
    steps: int
    seconds: float
    interventions: int = 0


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Performance:
    """Success rate (0–1), successes per robot hour without reset time, and median seconds to a success."""

    attempts: int
    successes: int
    success_rate: Estimate
    successes_per_hour: Estimate
    median_success_seconds: float | None


# A policy is better than another where the one-sided p-value is this at most; the error of a promotion, over
# all looks together, is at most this unless recap.toml says otherwise.
SIGNIFICANCE = 0.05
# A candidate that is faster but fails more often by over this share is not promoted.
LARGEST_SUCCESS_LOSS = 0.05


@dataclass(frozen=True)
class PairedDifference:
    """Candidate minus reference on the same starts; ``p_value`` is one-sided, for 'not better'.

    ``better``: whether the candidate makes more successes per hour beyond chance, by the test that the
    p-value is of.
    """

    successes_per_hour: Estimate
    success_rate: Estimate
    p_value: float
    better: bool


def wilson_interval(successes: int, attempts: int) -> Estimate:
    """The 95 % Wilson score interval of a proportion. Raises ``ValueError`` when nothing was attempted."""
    if attempts < 1 or not 0 <= successes <= attempts:
        raise ValueError(f"{successes} successes of {attempts} attempts")
    p = successes / attempts
    z2 = Z_95**2
    centre = (p + z2 / (2 * attempts)) / (1 + z2 / attempts)
    half = Z_95 * math.sqrt(p * (1 - p) / attempts + z2 / (4 * attempts**2)) / (1 + z2 / attempts)
    # The bounds are exact at 0 and 1 in theory; rounding must not push them past the estimate.
    return Estimate(p, max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p)))


def performance(attempts: Sequence[Attempt], seed: int = 0) -> Performance:
    """Summarises one evaluation."""
    if not attempts:
        raise ValueError("no attempts")
    success, seconds = _arrays(attempts)
    rates = _throughput(*_resampled(success, seconds, _resamples(len(attempts), seed)))
    point = float(_throughput(success.sum(), seconds.sum()))
    done = seconds[success]
    return Performance(
        attempts=len(attempts),
        successes=int(success.sum()),
        success_rate=wilson_interval(int(success.sum()), len(attempts)),
        successes_per_hour=_percentile_estimate(point, rates),
        median_success_seconds=float(np.median(done)) if done.size else None,
    )


def paired_intervals(
    candidate: Sequence[Attempt], reference: Sequence[Attempt], seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Candidate minus reference in successes per hour and in success rate (−1 to 1).

    Raises ``InputError`` when the starts are not the same.
    """
    require_same_starts(candidate, reference)
    picks = _resamples(len(candidate), seed)
    c_success, c_seconds = _arrays(candidate)
    r_success, r_seconds = _arrays(reference)
    differences = _throughput(*_resampled(c_success, c_seconds, picks)) - _throughput(
        *_resampled(r_success, r_seconds, picks)
    )
    point = float(
        _throughput(c_success.sum(), c_seconds.sum()) - _throughput(r_success.sum(), r_seconds.sum())
    )
    success_difference = c_success.astype(float) - r_success.astype(float)
    return (
        _percentile_estimate(point, differences),
        _percentile_estimate(float(success_difference.mean()), success_difference[picks].mean(axis=1)),
    )


def require_same_starts(candidate: Sequence[Attempt], reference: Sequence[Attempt]) -> None:
    """Raises ``InputError`` unless both ran the same starts in the same order, at least one."""
    starts = [(a.task, a.start_seed) for a in candidate]
    if not starts or starts != [(a.task, a.start_seed) for a in reference]:
        raise InputError(
            "the two evaluations did not run the same starts: evaluate both with the same --starts"
        )


def paired_share(gained: int, lost: int, starts: int) -> Estimate:
    """Difference of two success rates on the same starts, with Tango's 95 % score interval.

    ``gained``: starts that only the candidate solved; ``lost``: that only the reference did. The bounds are
    the differences ``d`` at which ``|gained - lost - n d| = z sqrt(n (2 q + d (1 - d)))``, where ``q``, the
    chance of a start that only the reference solves, has its greatest likelihood under ``d``: Tango 1998
    ("Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17), eqs. 11 and 12. Right for a few starts too, and where no start
    tells the two apart. Raises ``ValueError`` for counts that cannot be.
    """
    if starts < 1 or min(gained, lost) < 0 or gained + lost > starts:
        raise ValueError(f"{gained} gained and {lost} lost of {starts} starts")
    point = (gained - lost) / starts

    def height(d: float) -> float:
        """The score statistic under the difference ``d``; it falls as ``d`` grows."""
        b = d * (2 * starts - gained + lost) - gained - lost
        root = math.sqrt(max(b * b + 8 * starts * lost * d * (1 - d), 0.0))
        spread = starts * ((root - b) / (2 * starts) + d * (1 - d))
        away = gained - lost - starts * d
        if abs(away) < 1e-12:
            return 0.0
        return away / math.sqrt(spread) if spread > 1e-15 else math.copysign(math.inf, away)

    return Estimate(point, _crossing(height, -1.0, point, Z_95), _crossing(height, point, 1.0, -Z_95))


def _crossing(falling: Callable[[float], float], low: float, high: float, level: float) -> float:
    """Where a falling function passes ``level`` between ``low`` and ``high``, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def mean_difference(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of paired differences with its percentile bootstrap interval over starts."""
    found = np.array(values, float)
    if not len(found):
        raise ValueError("no differences")
    picks = _resamples(len(found), seed)
    return _percentile_estimate(float(found.mean()), found[picks].mean(axis=1))


def _arrays(attempts: Sequence[Attempt]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a.success for a in attempts], bool), np.array([a.seconds for a in attempts], float)


def _resamples(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, count, size=(BOOTSTRAP_RESAMPLES, count))


def _resampled(success: np.ndarray, seconds: np.ndarray, picks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return success[picks].sum(axis=1), seconds[picks].sum(axis=1)


def _throughput(successes: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    return successes / np.maximum(seconds, 1e-9) * SECONDS_PER_HOUR


def _percentile_estimate(point: float, samples: np.ndarray) -> Estimate:
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(point, float(min(low, point)), float(max(high, point)))
