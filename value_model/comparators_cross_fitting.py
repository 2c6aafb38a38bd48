"""Values out of fold from anything that can be fitted: what all comparators share.

They are given the same folds as the value model, so that no episode is judged by what was fitted to it
and a comparison is one of models and not of how much each was allowed to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.frame_table import FrameTable
from value_model.folds import assign_folds, held_out_folds
from value_model.returns import Outcomes, labelled_frames
from value_model.training_config import ValueTrainingConfig

# Frame indices (B,) to the values (B,) of those frames.
Predictor = Callable[[np.ndarray], np.ndarray]


def cross_fitted(
    table: FrameTable,
    outcomes: Outcomes,
    config: ValueTrainingConfig,
    fit: Callable[[np.ndarray, int], Predictor],
) -> np.ndarray:
    """The value of every frame by what was fitted without its episode, float32 ``(N,)`` in [−1, 0].

    ``fit(frames, fold)`` is called once a fold, with the indices of the frames of all episodes that have
    an outcome and are not in the fold. An episode without an outcome gets the mean over the folds, as
    from the value model, unless it is a copy of one that is in a fold. Raises ``InputError`` as
    :func:`value_model.folds.assign_folds` does.
    """
    of_episode = assign_folds(table, outcomes, config.folds, config.seed)
    fold_of_frame = held_out_folds(table, of_episode)[table.episode_index]
    labelled = labelled_frames(table, outcomes)
    free = np.flatnonzero(fold_of_frame < 0)
    values = np.zeros(len(table), dtype=np.float64)
    for fold in range(config.folds):
        predictor = fit(np.flatnonzero(labelled & (fold_of_frame != fold)), fold)
        held = np.flatnonzero(fold_of_frame == fold)
        values[held] = predictor(held)
        if len(free):
            values[free] += predictor(free) / config.folds
    return np.clip(values, -1.0, 0.0).astype(np.float32)


def by_task(table: FrameTable, frames: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The tasks of the given frames, each with those of the frames that belong to it."""
    names = {task: number for number, task in enumerate(dict.fromkeys(table.tasks))}
    number_of_episode = np.array([names[task] for task in table.tasks], dtype=np.int64)
    number = number_of_episode[table.episode_index[frames]]
    for task, wanted in names.items():
        chosen = frames[number == wanted]
        if len(chosen):
            yield task, chosen


def spread(frames: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of the frames, evenly spread: neighbours are nearly the same picture."""
    if len(frames) <= most:
        return frames
    return frames[np.linspace(0, len(frames) - 1, most).round().astype(np.int64)]
