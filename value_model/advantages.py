"""Which frames were better than usual: N-step advantages, per-task thresholds, indicators, reasons.

The advantage of π*0.6 (arXiv 2511.14759, section IV), in normalised units:

    A_t = sum_{k<N} r_{t+k} + V(o_{t+N}) − V(o_t)

with r = −1/normaliser for every step that is not the last of its episode. Where t + N lies past the
last frame the sum runs to the end, terminal reward included, and no value is added: A_t is then the
true return minus V(o_t). A frame is *positive* when A_t exceeds its task's threshold, which is set so
that ``positive_fraction`` of the task's frames do. A person's corrections are positive whatever
their advantage, and for that reason have no say in the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from value_model.returns import Outcomes, TaskScale, frame_returns, labelled_frames, task_scales


class Reason(IntEnum):
    """Why a frame has the indicator it has; stored as int8."""

    NO_OUTCOME = 0
    BELOW_THRESHOLD = 1
    ABOVE_THRESHOLD = 2
    FORCED_POSITIVE_INTERVENTION = 3


@dataclass(frozen=True)
class AdvantageConfig:
    """How advantages become indicators.

    horizon: N, in frames; ``None`` looks to the episode's end (the paper: 50 frames at 50 Hz when
    fine-tuning, the end in pre-training). positive_fraction: the share of a task's frames, a person's
    corrections aside, that is made positive: 0.4 makes 40 % positive and 60 % negative (the paper:
    about 0.3 in pre-training, 0.4 in fine-tuning).
    """

    horizon: int | None = 10
    positive_fraction: float = 0.3

    def __post_init__(self) -> None:
        if self.horizon is not None and self.horizon < 1:
            raise InputError(f"advantage horizon {self.horizon}: use a positive number of frames, or none")
        if not 0 < self.positive_fraction < 1:
            raise InputError(f"positive_fraction {self.positive_fraction} is not between 0 and 1, e.g. 0.3")


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
    table: FrameTable, values: np.ndarray, outcomes: Outcomes, failure_penalty: float, config: AdvantageConfig
) -> FrameAdvantages:
    """Advantages and indicators of every frame from its ``(N,)`` values and the episodes' outcomes.

    ``failure_penalty`` is the one the values were trained with. Frames of an episode without an
    outcome get no indicator, corrections included. Raises ``InputError`` when a value is missing
    (NaN) or of another length than the table.
    """
    scales = task_scales(table, outcomes, failure_penalty)
    returns = frame_returns(table, outcomes, scales)
    advantages = n_step_advantages(table, values, returns, scales, config.horizon)
    labelled = labelled_frames(table, outcomes)
    intervention = np.asarray(table.source) == Source.INTERVENTION
    task_of_episode = np.array(table.tasks, dtype=object)
    task_of_frame = task_of_episode[table.episode_index]
    reasons = np.full(len(advantages), Reason.NO_OUTCOME, dtype=np.int8)
    thresholds: dict[str, float] = {}
    for task in scales:
        free = np.flatnonzero((task_of_frame == task) & labelled & ~intervention)
        if len(free) == 0:
            continue
        thresholds[task] = threshold(advantages[free], config.positive_fraction)
        above = advantages[free] > thresholds[task]
        reasons[free] = np.where(above, Reason.ABOVE_THRESHOLD, Reason.BELOW_THRESHOLD)
    reasons[labelled & intervention] = Reason.FORCED_POSITIVE_INTERVENTION
    return FrameAdvantages(returns, advantages, indicators_of(reasons), reasons, thresholds)


def n_step_advantages(
    table: FrameTable,
    values: np.ndarray,
    returns: np.ndarray,
    scales: Mapping[str, TaskScale],
    horizon: int | None,
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
        start, length = int(table.starts[i]), int(table.lengths[i])
        if horizon is None or length <= horizon or np.isnan(returns[start]):
            continue
        # Frames whose frame t + N exists; the later ones keep "return minus value" from above.
        now = np.arange(start, start + length - horizon)
        advantages[now] = horizon * scales[task].step_reward + value[now + horizon] - value[now]
    return advantages.astype(np.float32)


def threshold(advantages: np.ndarray, positive_fraction: float) -> float:
    """ε such that ``round(positive_fraction x n)`` of the n advantages are greater; fewer only by ties.

    Raises ``InputError`` for an empty array, NaN, or a fraction outside [0, 1].
    """
    if len(advantages) == 0 or np.isnan(advantages).any() or not 0 <= positive_fraction <= 1:
        raise InputError(
            f"no threshold from {len(advantages)} advantages ({int(np.isnan(advantages).sum())} missing) and "
            f"positive_fraction {positive_fraction}"
        )
    positives = round(positive_fraction * len(advantages))
    descending = np.sort(advantages)[::-1]
    if positives == len(advantages):
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
    return by_reason[reasons]
