"""What a value model has to beat: a value that knows only the task and how many frames have passed.

It is a strong opponent for correlations: an episode that has gone on for long mostly ends badly. It
sees nothing, however, and so cannot tell a good frame from a bad one of the same age.
"""

from __future__ import annotations

import numpy as np

from pipeline.frame_table import FrameTable
from value_model.folds import assign_folds
from value_model.returns import Outcomes, frame_returns, labelled_frames, task_scales
from value_model.training_config import ValueTrainingConfig

# Frames on either side that are averaged with a frame: neighbours in time are worth about the same.
_SMOOTHING = 2


def score_time_only(table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig) -> np.ndarray:
    """The out-of-fold value of every frame from its task and frame number, float32 ``(N,)`` in [−1, 0].

    Uses the folds and the failure penalty of ``config``; an episode without an outcome gets the mean
    over the folds. A fold without any other episode of a task falls back to the middle, −0.5.
    """
    of_episode = assign_folds(table, outcomes, config.folds, config.seed)
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, config.failure_penalty))
    fold_of_frame = np.array([of_episode.get(i, -1) for i in table.episode_ids])[table.episode_index]
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    labelled = labelled_frames(table, outcomes)
    values = np.zeros(len(returns), dtype=np.float64)
    for task in dict.fromkeys(table.tasks):
        of_task = task_of_frame == task
        for fold in range(config.folds):
            known = of_task & labelled & (fold_of_frame != fold)
            curve = _mean_by_age(table.frame_index[known], returns[known])
            for wanted, weight in ((fold_of_frame == fold, 1.0), (fold_of_frame < 0, 1.0 / config.folds)):
                scored = of_task & wanted
                age = np.minimum(table.frame_index[scored], len(curve) - 1)
                values[scored] += weight * curve[age]
    return values.astype(np.float32)


def _mean_by_age(age: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Mean return of frames ``0 … max(age)``, each over the ages at most ``_SMOOTHING`` away."""
    if len(age) == 0:
        return np.array([-0.5])
    window = np.ones(2 * _SMOOTHING + 1)
    total = np.convolve(np.bincount(age, weights=returns), window)[_SMOOTHING:-_SMOOTHING]
    count = np.convolve(np.bincount(age), window)[_SMOOTHING:-_SMOOTHING]
    # Every age below the greatest one is somebody's, since episodes are contiguous: no count is 0.
    return total / count
