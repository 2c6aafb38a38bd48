"""Which frames were better than usual: N-step advantages, per-task thresholds, indicators, reasons.

The advantage of π*0.6 (arXiv 2511.14759, section IV), in normalised units:

    A_t = sum_{k<N} r_{t+k} + V(o_{t+N}) − V(o_t)

with r = −1/(rate x normaliser) for every step that is not the last of its episode. Where t + N lies past
the last frame the sum runs to the end, terminal reward included, and no value is added: A_t is then the
true return minus V(o_t). A frame is *positive* when A_t exceeds its task's threshold, which is set so
that ``positive_fraction`` of the task's autonomous frames are.

*Autonomous* frames are those whose indicator the advantage decides: all frames of episodes with an
outcome, except a person's corrections. Corrections are positive whatever their advantage (the paper), and
for that reason have no say in the threshold. Demonstrations are not exempt: they are counted in the share
and held to the threshold like a policy's own frames. A lab's demonstrators differ, and telling the brisk
ones from the clumsy ones is what the indicator is for; were all of them positive, their mistakes would be
asked for at deployment. Were they left out of the share, a policy's frames would be measured against each
other alone, and the best of a poor policy would be called good.

*The end of a failure.* A frame of a failed episode whose sum reaches the end is never positive, corrections
aside: what a person did there is positive, as everywhere. By the formula it may be:
A_t = R_t − V(o_t) > 0 means that V(o_t) < R_t ≤ −C_fail, so with ``failure_penalty`` ≥ 1
(see ``value_model.returns``) the frame was valued below every success. The attempt was held for lost
already, and the good news is only that it was broken off sooner than expected, by a time limit that no
camera sees (Pardo et al., "Time limits in reinforcement learning", arXiv 1712.00378). E[A] = 0 holds over
all frames that look alike, not over those of them that a time limit happens to follow. With perfectly
calibrated values, and attempts that get stuck until a time limit, such frames are the *best* of the task by
the formula: all of them are positive, a third of all positives, and the policy would learn to do what stuck
robots do. A larger C_fail is no remedy. Twice as large changes nothing; ten times helps with a short
look-ahead only, and leaves a tenth of the range to tell fast from slow. So it is a rule. As with corrections
the indicator is overridden, not the value: these frames stay counted in the share, and others take their
places. ``negative_failure_ends=False`` is the bare formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipeline.episode import Outcome, Source
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from value_model.returns import (
    Outcomes,
    Penalty,
    TaskScale,
    episode_outcomes,
    frame_returns,
    labelled_frames,
    task_scales,
)


class Reason(IntEnum):
    """Why a frame has the indicator it has; stored as int8.

    ``NEGATIVE_FAILURE_END``: above the threshold, but at the end of a failure (see the module).
    """

    NO_OUTCOME = 0
    BELOW_THRESHOLD = 1
    ABOVE_THRESHOLD = 2
    FORCED_POSITIVE_INTERVENTION = 3
    NEGATIVE_FAILURE_END = 4


@dataclass(frozen=True)
class AdvantageConfig:
    """How advantages become indicators.

    horizon, horizon_s: N, in frames or in seconds, one of the two; neither looks to the episode's end
    (the paper: 50 frames at 50 Hz when fine-tuning, the end in pre-training). Seconds are turned into
    frames at each episode's own rate. positive_fraction: the share of a task's autonomous frames that
    is made positive: 0.4 makes 40 % positive and 60 % negative (the paper: about 0.3 in pre-training,
    0.4 in fine-tuning). negative_failure_ends: whether the end of a failure is never positive, corrections
    aside.
    """

    horizon: int | None = None
    positive_fraction: float = 0.3
    horizon_s: float | None = None
    negative_failure_ends: bool = True

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon_s is not None:
            raise InputError(
                f"advantage horizon {self.horizon} frames and {self.horizon_s} s: give one, or neither "
                "to look to the episode's end"
            )
        if self.horizon is not None and self.horizon < 1:
            raise InputError(f"advantage horizon {self.horizon}: use a positive number of frames, or none")
        if self.horizon_s is not None and not (math.isfinite(self.horizon_s) and self.horizon_s > 0):
            raise InputError(
                f"advantage horizon {self.horizon_s} s: use a positive number of seconds, or none"
            )
        if not 0 < self.positive_fraction < 1:
            raise InputError(f"positive_fraction {self.positive_fraction} is not between 0 and 1, e.g. 0.3")

    def frames_ahead(self, rate_hz: float) -> int | None:
        """N in frames of an episode with that rate, at least 1; ``None`` where it is to the end."""
        if self.horizon_s is None:
            return self.horizon
        return max(1, round(self.horizon_s * rate_hz))


@dataclass(frozen=True)
class FrameAdvantages:
    """The result for N frames.

    returns, advantages: float32 ``(N,)``, NaN where the episode has no outcome. indicators: int8
    ``(N,)`` of ``pipeline.prompts``. reasons: int8 ``(N,)`` of :class:`Reason`. thresholds: per task;
    a task has one if any frame of it had a say.
    """

    returns: np.ndarray
    advantages: np.ndarray
    indicators: np.ndarray
    reasons: np.ndarray
    thresholds: dict[str, float]


def label_frames(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    failure_penalty: Penalty,
    config: AdvantageConfig,
) -> FrameAdvantages:
    """Advantages and indicators of every frame from its ``(N,)`` values and the episodes' outcomes.

    ``failure_penalty`` is the one the values were trained with; their unit is that of ``outcomes`` (where
    they were trained under others, see :func:`value_model.returns.unit_factors`). Frames of an episode
    without an outcome get no indicator, corrections included. Raises ``InputError`` when a value is missing
    (NaN) or of another length than the table.
    """
    scales = task_scales(table, outcomes, failure_penalty)
    returns = frame_returns(table, outcomes, scales)
    advantages = n_step_advantages(table, values, returns, scales, config)
    labelled = labelled_frames(table, outcomes)
    intervention = np.asarray(table.source) == Source.INTERVENTION
    barred = failure_ends(table, outcomes, config)
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    reasons = np.full(len(advantages), Reason.NO_OUTCOME, dtype=np.int8)
    thresholds: dict[str, float] = {}
    for task in scales:
        autonomous = np.flatnonzero((task_of_frame == task) & labelled & ~intervention)
        if len(autonomous) == 0:
            continue
        found, out = advantages[autonomous], barred[autonomous]
        thresholds[task] = threshold(found, config.positive_fraction, out)
        decided = np.where(found > thresholds[task], Reason.ABOVE_THRESHOLD, Reason.BELOW_THRESHOLD)
        decided[out & (decided == Reason.ABOVE_THRESHOLD)] = Reason.NEGATIVE_FAILURE_END
        reasons[autonomous] = decided
    reasons[labelled & intervention] = Reason.FORCED_POSITIVE_INTERVENTION
    return FrameAdvantages(returns, advantages, indicators_of(reasons), reasons, thresholds)


def n_step_advantages(
    table: FrameTable,
    values: np.ndarray,
    returns: np.ndarray,
    scales: Mapping[str, TaskScale],
    config: AdvantageConfig,
) -> np.ndarray:
    """A_t of every frame, float32 ``(N,)``; NaN exactly where ``returns`` is (no outcome).

    ``values`` and ``returns`` are ``(N,)`` in normalised units. Raises ``InputError`` when they have
    other lengths or a value is not finite.
    """
    frames = len(table.episode_index)
    if np.shape(values) != (frames,) or np.shape(returns) != (frames,):
        raise InputError(f"{np.shape(values)} values and {np.shape(returns)} returns for {frames} frames")
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        episode = table.episode_ids[int(table.episode_index[first])]
        raise InputError(
            f"frame {int(table.frame_index[first])} of episode {episode} has no value: score it first"
        )
    value = np.asarray(values, dtype=np.float64)
    advantages = np.asarray(returns, dtype=np.float64) - value
    for i, task in enumerate(table.tasks):
        start, length, rate_hz = int(table.starts[i]), int(table.lengths[i]), float(table.rates[i])
        ahead = config.frames_ahead(rate_hz)
        if ahead is None or length <= ahead or np.isnan(returns[start]):
            continue
        # Frames whose frame t + N exists; the later ones keep "return minus value" from above.
        now = np.arange(start, start + length - ahead)
        advantages[now] = ahead * scales[task].step_reward(rate_hz) + value[now + ahead] - value[now]
    return advantages.astype(np.float32)


def failure_ends(table: FrameTable, outcomes: Outcomes, config: AdvantageConfig) -> np.ndarray:
    """Frames of failures whose sum reaches the end; bool ``(N,)``. Only corrections are positive there."""
    ends = np.zeros(len(table.episode_index), dtype=bool)
    if not config.negative_failure_ends:
        return ends
    for i, outcome in enumerate(episode_outcomes(table, outcomes)):
        if outcome == Outcome.FAILURE:
            length = int(table.lengths[i])
            ahead = config.frames_ahead(float(table.rates[i]))
            reaches = length if ahead is None else min(ahead, length)
            rows = table.frames_of(i)
            ends[rows.stop - reaches : rows.stop] = True
    return ends


def threshold(advantages: np.ndarray, positive_fraction: float, barred: np.ndarray | None = None) -> float:
    """ε such that ``round(positive_fraction x n)`` of the n advantages are greater; fewer only by ties.

    ``barred`` ``(n,)`` bool marks those that count among the n but cannot be positive: ε is then such
    that so many of the *others* are greater, all of them where they are fewer. Raises ``InputError``
    for an empty array, NaN, or a fraction outside [0, 1].
    """
    if len(advantages) == 0 or np.isnan(advantages).any() or not 0 <= positive_fraction <= 1:
        raise InputError(
            f"no threshold from {len(advantages)} advantages ({int(np.isnan(advantages).sum())} missing) and "
            f"positive_fraction {positive_fraction}"
        )
    allowed = advantages if barred is None else advantages[~barred]
    positives = round(positive_fraction * len(advantages))
    if len(allowed) == 0:
        return float(np.max(advantages))
    descending = np.sort(allowed)[::-1]
    if positives >= len(allowed):
        # The next number below the least, and not −inf, which JSON does not have.
        return float(np.nextafter(descending[-1], np.float32(-np.inf)))
    return float(descending[positives])


def indicators_of(reasons: np.ndarray) -> np.ndarray:
    """The indicator that follows from each reason, int8 ``(N,)``."""
    by_reason = np.empty(len(Reason), dtype=np.int8)
    by_reason[Reason.NO_OUTCOME] = NONE
    by_reason[Reason.BELOW_THRESHOLD] = NEGATIVE
    by_reason[Reason.ABOVE_THRESHOLD] = POSITIVE
    by_reason[Reason.FORCED_POSITIVE_INTERVENTION] = POSITIVE
    by_reason[Reason.NEGATIVE_FAILURE_END] = NEGATIVE
    return by_reason[reasons]
