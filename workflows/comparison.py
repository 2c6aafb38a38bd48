"""How good is a policy, and is one better than another: intervals and a paired test.

An evaluation is a list of :class:`Attempt`; two evaluations are comparable when they ran the same
starts in the same order. Success has a Wilson interval (Wilson 1927, eq. for the score interval);
successes per hour and paired differences have percentile bootstrap intervals (Efron 1979) over starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError

SECONDS_PER_HOUR = 3600.0
Z_95 = 1.959963984540054
BOOTSTRAP_RESAMPLES = 4000


@dataclass(frozen=True)
class Attempt:
    """One evaluated start: which, what happened, and how long it took in robot seconds."""

    task: str
    start_seed: int
    success: bool
    steps: int
    seconds: float


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


# A candidate is better where the one-sided p-value on the same starts is below this: the decision and the
# report's words ask the same.
SIGNIFICANCE = 0.05
# A candidate that is faster but fails more often by over this share is not promoted.
LARGEST_SUCCESS_LOSS = 0.05


@dataclass(frozen=True)
class PairedDifference:
    """Candidate minus reference on the same starts; ``p_value`` is one-sided, for 'not better'."""

    successes_per_hour: Estimate
    success_rate: Estimate
    p_value: float


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


def paired_difference(
    candidate: Sequence[Attempt], reference: Sequence[Attempt], seed: int = 0
) -> PairedDifference:
    """Candidate against reference; raises ``InputError`` when the starts are not the same."""
    starts = [(a.task, a.start_seed) for a in candidate]
    if not starts or starts != [(a.task, a.start_seed) for a in reference]:
        raise InputError(
            "the two evaluations did not run the same starts: evaluate both with the same --starts"
        )
    picks = _resamples(len(starts), seed)
    c_success, c_seconds = _arrays(candidate)
    r_success, r_seconds = _arrays(reference)
    differences = _throughput(*_resampled(c_success, c_seconds, picks)) - _throughput(
        *_resampled(r_success, r_seconds, picks)
    )
    point = float(
        _throughput(c_success.sum(), c_seconds.sum()) - _throughput(r_success.sum(), r_seconds.sum())
    )
    success_difference = c_success.astype(float) - r_success.astype(float)
    return PairedDifference(
        successes_per_hour=_percentile_estimate(point, differences),
        success_rate=_percentile_estimate(
            float(success_difference.mean()), success_difference[picks].mean(axis=1)
        ),
        # Counting the observed sample keeps the p-value off zero (Davison & Hinkley 1997, eq. 4.11).
        p_value=float((1 + np.sum(differences <= 0)) / (1 + len(differences))),
    )


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
