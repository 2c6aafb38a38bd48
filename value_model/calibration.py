"""How good values are: whether they follow the return, tell success from failure, and mean what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.episode import Outcome, Source
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.prompts import NONE, POSITIVE
from value_model.discrimination import EPISODE_PARTS, auc_at
from value_model.returns import (
    Outcomes,
    Penalty,
    episode_outcomes,
    frame_returns,
    labelled_frames,
    task_scales,
)

RELIABILITY_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Frames whose value lies in [low, high): their number, mean value and mean return."""

    low: float
    high: float
    frames: int
    mean_value: float
    mean_return: float


@dataclass(frozen=True)
class ValueQuality:
    """Quality of a set of values, over the frames of episodes that have an outcome.

    frames, episodes: how many there are. correlation: Pearson's, of value and return, over all
    frames; ``None`` where either is constant. correlation_by_task: the same within each task.
    mean_absolute_error: |value − return|. auc_by_part: chance that a success is valued above a failure
    of the same task, at 25, 50 and 75 % of each one's own length. auc_same_age: the same comparison
    at equal ages in seconds (25, 50 and 75 % of the task's median success), so that nothing can be told
    from how long an episode has lasted. ``None`` without a pair to compare. reliability: value
    against mean return. positive_share: task, then source, to the share of frames with an indicator
    that are positive; empty when no indicators were given.

    expected_calibration_error, adaptive_calibration_error: see the functions of these names.
    rank_correlation: Spearman's, of value and −time-to-go over the frames of successes: the mean over
    tasks of rank_correlation_by_task. baselines: the same measures of rival values, by their names.
    """

    frames: int
    episodes: int
    correlation: float | None
    correlation_by_task: dict[str, float | None]
    mean_absolute_error: float
    auc_by_part: dict[str, float | None]
    auc_same_age: dict[str, float | None]
    reliability: tuple[ReliabilityBin, ...]
    positive_share: dict[str, dict[str, float]]
    expected_calibration_error: float | None = None
    adaptive_calibration_error: float | None = None
    rank_correlation: float | None = None
    rank_correlation_by_task: dict[str, float | None] = field(default_factory=dict)
    baselines: dict[str, ValueQuality] = field(default_factory=dict)

    def to_json(self) -> str:
        """One JSON object with the fields' names."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ValueQuality:
        """The inverse of :meth:`to_json`; what an older file lacks is ``None`` or empty."""
        return cls.from_document(json.loads(text))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ValueQuality:
        """From the parsed JSON."""
        nested = {
            "reliability": tuple(ReliabilityBin(**b) for b in document["reliability"]),
            "baselines": {n: cls.from_document(b) for n, b in document.get("baselines", {}).items()},
        }
        return cls(**{**document, **nested})


def measure_quality(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    failure_penalty: Penalty,
    indicators: np.ndarray | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
) -> ValueQuality:
    """Measures ``values`` ``(N,)`` (out of fold, or they flatter themselves) against the true returns.

    ``indicators`` is int8 ``(N,)``; ``baselines`` are rival values, measured alike. Raises ``InputError``
    when no episode has an outcome or a value is not finite.
    """
    labelled = labelled_frames(table, outcomes)
    if not labelled.any():
        raise InputError("no episode has an outcome: label some before the value model is judged")
    if np.shape(values) != labelled.shape or not np.isfinite(values).all():
        raise InputError(f"{np.shape(values)} values for {len(labelled)} frames, or some are not finite")
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, failure_penalty))
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    tasks = sorted(set(task_of_frame[labelled]))
    by_task = {t: labelled & (task_of_frame == t) for t in tasks}
    value, truth = np.asarray(values, dtype=np.float64)[labelled], returns[labelled].astype(np.float64)
    ranks = rank_correlations(table, values, outcomes)
    known = [rho for rho in ranks.values() if rho is not None]
    return ValueQuality(
        frames=int(labelled.sum()),
        episodes=sum(o is not None for o in episode_outcomes(table, outcomes)),
        correlation=correlation(value, truth),
        correlation_by_task={t: correlation(values[m], returns[m]) for t, m in by_task.items()},
        mean_absolute_error=float(np.abs(value - truth).mean()),
        auc_by_part={f"{p:.0%}": auc_at(table, values, outcomes, p, same_age=False) for p in EPISODE_PARTS},
        auc_same_age={f"{p:.0%}": auc_at(table, values, outcomes, p, same_age=True) for p in EPISODE_PARTS},
        reliability=reliability(value, truth),
        positive_share={} if indicators is None else positive_share(table, indicators),
        expected_calibration_error=expected_calibration_error(value, truth),
        adaptive_calibration_error=adaptive_calibration_error(value, truth),
        rank_correlation=float(np.mean(known)) if known else None,
        rank_correlation_by_task=ranks,
        baselines={
            name: measure_quality(table, rival, outcomes, failure_penalty)
            for name, rival in (baselines or {}).items()
        },
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation, or ``None`` where one of the two does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(np.asarray(a, np.float64), np.asarray(b, np.float64))[0, 1])


def reliability(values: np.ndarray, returns: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Mean value and mean return of the frames in each tenth of [−1, 0]; empty tenths are left out."""
    edges = np.linspace(-1.0, 0.0, RELIABILITY_BINS + 1)
    which = np.clip(np.digitize(values, edges) - 1, 0, RELIABILITY_BINS - 1)
    return tuple(
        ReliabilityBin(
            float(edges[b]),
            float(edges[b + 1]),
            int((which == b).sum()),
            float(values[which == b].mean()),
            float(returns[which == b].mean()),
        )
        for b in range(RELIABILITY_BINS)
        if (which == b).any()
    )


def expected_calibration_error(values: np.ndarray, returns: np.ndarray) -> float:
    """Σ_b (n_b / N) · |mean value − mean return| over ten equal parts b of [−1, 0].

    Guo et al., arXiv 1706.04599, eq. 3, after Naeini et al. (AAAI 2015), with the return for accuracy and
    the value for confidence. In units of the return; 0 is perfect, and also what the mean return gives.
    """
    return _calibration_error(values, returns, np.linspace(-1.0, 0.0, RELIABILITY_BINS + 1)[1:-1])


def adaptive_calibration_error(values: np.ndarray, returns: np.ndarray) -> float:
    """As :func:`expected_calibration_error` over ten parts of equally many frames; equal values share one.

    After Nixon et al., arXiv 1904.01685, section 3.2: robust where values crowd into a few tenths.
    """
    inner = np.quantile(values, np.linspace(0, 1, RELIABILITY_BINS + 1)[1:-1])
    return _calibration_error(values, returns, np.unique(inner))


def calibration_noise(values: np.ndarray, returns: np.ndarray, episode: np.ndarray) -> float:
    """The expected calibration error that perfectly calibrated values would show on so few episodes.

    A part's gap then has mean 0. Its variance is the sum of the episodes' squared sums of residuals, since
    frames of one ``episode`` (N,) int share their luck (cluster-robust, Liang & Zeger 1986); a normal gap's
    absolute mean is √(2/π) of its deviation.
    """
    which = np.digitize(values, np.linspace(-1.0, 0.0, RELIABILITY_BINS + 1)[1:-1])
    total = 0.0
    for b in np.unique(which):
        here = which == b
        sums = np.bincount(np.unique(episode[here], return_inverse=True)[1], returns[here] - values[here])
        total += np.sqrt(2 / np.pi * (sums**2).sum())
    return float(total / len(values))


def rank_correlations(table: FrameTable, values: np.ndarray, outcomes: Outcomes) -> dict[str, float | None]:
    """Per task, Spearman's correlation of value and −time-to-go over all frames of its successes.

    ``None`` where either does not vary; a task without a success is left out. In seconds, so that
    episodes recorded at different rates may be ranked together.
    """
    # Loads for most of a second, and every driver imports this module.
    from scipy.stats import spearmanr

    won = np.array([o == Outcome.SUCCESS for o in episode_outcomes(table, outcomes)], dtype=bool)
    lengths, rates = np.asarray(table.lengths), np.asarray(table.rates)
    left = (lengths[table.episode_index] - 1 - table.frame_index) / rates[table.episode_index]
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    found: dict[str, float | None] = {}
    for task in dict.fromkeys(table.tasks):
        here = won[table.episode_index] & (task_of_frame == task)
        if here.any():
            varies = np.ptp(values[here]) > 0 and np.ptp(left[here]) > 0
            found[task] = float(spearmanr(values[here], -left[here]).statistic) if varies else None
    return found


def _calibration_error(values: np.ndarray, returns: np.ndarray, inner_edges: np.ndarray) -> float:
    which = np.digitize(values, inner_edges)
    gaps = np.bincount(which, np.asarray(values, np.float64) - np.asarray(returns, np.float64))
    return float(np.abs(gaps).sum() / len(values))


def positive_share(table: FrameTable, indicators: np.ndarray) -> dict[str, dict[str, float]]:
    """Per task and source (``teleop``, …): the positives among the frames that have an indicator."""
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    shares: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(table.tasks):
        for source in Source:
            chosen = indicators[(task_of_frame == task) & (table.source == source) & (indicators != NONE)]
            if len(chosen):
                shares.setdefault(task, {})[source.name.lower()] = float((chosen == POSITIVE).mean())
    return shares
