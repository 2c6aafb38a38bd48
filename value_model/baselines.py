"""What a value model has to beat: cheap values that each know one thing, and nothing else.

*Time only* knows the task and how long an attempt has gone on. It is a strong opponent for
correlations, since an episode that has gone on for long mostly ends badly; it sees nothing, however,
and so cannot tell a good frame from a bad one of the same age. *Outcome only* sees the frame and judges
how likely it ends well, but not how long that will take: what it lacks is progress. A value model that
does not beat both has learned the clock, or the outcome, and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.frame_table import FrameTable
from value_model.comparators_chance import (
    chance_by_task,
    fit_chance,
    interpolated,
    score_by_chance,
    spread_within_episodes,
    won_frames,
)
from value_model.comparators_cross_fitting import Predictor, by_task, cross_fitted, spread
from value_model.returns import Outcomes, frame_returns, task_scales
from value_model.thumbnails import thumbnails
from value_model.training_config import ValueTrainingConfig

# Ages on either side that are averaged with an age: neighbours in time are worth about the same.
_SMOOTHING = 2
# The middle of the range: what is said of a task that nothing is known of.
_UNKNOWN = -0.5


@dataclass(frozen=True)
class Constant:
    """One value for every frame of a task: what it is worth on average."""

    name: ClassVar[str] = "constant"
    sentence: ClassVar[str] = "the mean return of the task, for every frame of it"

    def score(self, table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
        """The value of every frame out of fold, float32 ``(N,)`` in [−1, 0]."""
        returns = _returns(table, outcomes, config)

        def fit(known: np.ndarray, fold: int) -> Predictor:
            means = {task: float(returns[frames].mean()) for task, frames in by_task(table, known)}
            of_episode = np.array([means.get(task, _UNKNOWN) for task in table.tasks])
            return lambda frames: of_episode[table.episode_index[frames]]

        return cross_fitted(table, outcomes, config, fit)


@dataclass(frozen=True)
class TimeOnly:
    """The mean return at the same age, in seconds since the episode's start, under the same task."""

    name: ClassVar[str] = "time only"
    sentence: ClassVar[str] = "the mean return of other episodes of the task, so long after the start"

    def score(self, table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
        """The value of every frame out of fold, float32 ``(N,)`` in [−1, 0].

        A frame older than any known episode of its task is worth what the oldest known frames are; a
        task without any other episode falls back to the middle, −0.5.
        """
        returns = _returns(table, outcomes, config)
        # Whole frames of the slowest recording, so that every episode has a frame of every age.
        per_frame = table.rates.min() / table.rates[table.episode_index]
        age = np.floor(table.frame_index * per_frame + 1e-6).astype(np.int64)

        def fit(known: np.ndarray, fold: int) -> Predictor:
            curves = {task: _mean_by_age(age[f], returns[f]) for task, f in by_task(table, known)}

            def predict(frames: np.ndarray) -> np.ndarray:
                values = np.empty(len(table))
                for task, chosen in by_task(table, frames):
                    curve = curves.get(task, np.array([_UNKNOWN]))
                    values[chosen] = curve[np.minimum(age[chosen], len(curve) - 1)]
                return values[frames]

            return predict

        return cross_fitted(table, outcomes, config, fit)


@dataclass(frozen=True)
class OutcomeOnly:
    """p x (mean return of the task's successes) + (1 − p) x (mean return of its failures).

    p is the chance of success that a logistic regression reads from small copies of all cameras'
    pictures and the robot's state, fitted for each task and fold. fit_frames: how many frames of a fold
    it is fitted to, evenly spread. data_weight: of the frames' mean loss against half the squared
    weights, however many frames they are, since the frames of an episode are no independent witnesses of
    how it ended (scikit-learn's C is this, divided by the frames). On 260 simulated episodes a tenth or
    ten times of it gave chances that were less well calibrated. most_frames: of how many frames the pictures
    are read at all; where there are more, of about so many, evenly spread within each episode and always of
    its first and last, and p is interpolated linearly between them. Takes 0.9 kB for each of them with two
    cameras.
    """

    name: ClassVar[str] = "outcome only"
    sentence: ClassVar[str] = (
        "how likely the frame ends well, from its pictures and state, and nothing of how long that takes"
    )
    fit_frames: int = 4000
    data_weight: float = 1.0
    most_frames: int = 50_000

    def score(self, table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
        """The value of every frame out of fold, float32 ``(N,)`` in [−1, 0]."""
        won = won_frames(table, outcomes)
        seen = spread_within_episodes(table, self.most_frames)
        small = thumbnails(table, seen)
        row_of = np.full(len(table), -1)
        row_of[seen] = np.arange(len(seen))

        def features(frames: np.ndarray) -> np.ndarray:
            pictures = small[row_of[frames]].astype(np.float32) / np.float32(255.0)
            return np.concatenate([pictures, table.state[frames]], axis=1, dtype=np.float32)

        def fit(known: np.ndarray, fold: int) -> Predictor:
            known = known[row_of[known] >= 0]

            def one_task(frames: np.ndarray) -> Predictor:
                share = max(2, self.fit_frames * len(frames) // len(known))
                return fit_chance(features, won, spread(frames, share), self.data_weight)

            return interpolated(table, seen, chance_by_task(table, known, one_task))

        return score_by_chance(table, outcomes, config, fit)


def score_time_only(table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
    """The values of :class:`TimeOnly`."""
    return TimeOnly().score(table, outcomes, config)


def _returns(table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
    return frame_returns(table, outcomes, task_scales(table, outcomes, config.failure_penalty))


def _mean_by_age(age: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Mean return of ages ``0 … max(age)``, each over the ages at most ``_SMOOTHING`` away."""
    window = np.ones(2 * _SMOOTHING + 1)
    total = np.convolve(np.bincount(age, weights=returns), window)[_SMOOTHING:-_SMOOTHING]
    count = np.convolve(np.bincount(age), window)[_SMOOTHING:-_SMOOTHING]
    # Every age below the greatest one is somebody's, since episodes are contiguous: no count is 0.
    return total / count
