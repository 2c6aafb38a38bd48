"""From a chance of success to a value that knows nothing of time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.episode import Outcome
from pipeline.frame_table import FrameTable
from value_model.comparators_cross_fitting import Predictor, by_task, cross_fitted
from value_model.returns import Outcomes, episode_outcomes, frame_returns, task_scales
from value_model.training_config import ValueTrainingConfig

# A feature that hardly varies is not blown up to the size of the others.
_LEAST_DEVIATION = 1e-3
_MOST_ITERATIONS = 60
# Frames whose features are in memory at a time.
_BLOCK = 4096

# Frame indices (B,) to the features (B, F) float32 of those frames.
Features = Callable[[np.ndarray], np.ndarray]


def won_frames(table: FrameTable, outcomes: Outcomes) -> np.ndarray:
    """Which frames belong to a success, bool ``(N,)``; failures and unlabelled episodes do not."""
    won = [outcome == Outcome.SUCCESS for outcome in episode_outcomes(table, outcomes)]
    return np.array(won, dtype=bool)[table.episode_index]


def score_by_chance(
    table: FrameTable,
    outcomes: Outcomes,
    config: ValueTrainingConfig,
    fit: Callable[[np.ndarray, int], Predictor],
) -> np.ndarray:
    """p x (mean return of a task's successes) + (1 − p) x (that of its failures), out of fold.

    ``fit(frames, fold)`` gives what turns frame indices ``(B,)`` into chances of success ``(B,)``. The two
    means are over the same frames that ``fit`` is given; of a task that has known successes or known
    failures only, every frame is worth their mean, and of one without either −0.5. Float32 ``(N,)``.
    """
    won = won_frames(table, outcomes)
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, config.failure_penalty))

    def fit_value(known: np.ndarray, fold: int) -> Predictor:
        chance = fit(known, fold)
        ends = {task: _mean_returns(returns[f], won[f]) for task, f in by_task(table, known)}

        def predict(frames: np.ndarray) -> np.ndarray:
            values = np.full(len(table), -0.5)
            values[frames] = chance(frames)
            for task, chosen in by_task(table, frames):
                success, failure = ends.get(task, (-0.5, -0.5))
                values[chosen] = values[chosen] * success + (1 - values[chosen]) * failure
            return values[frames]

        return predict

    return cross_fitted(table, outcomes, config, fit_value)


def _mean_returns(returns: np.ndarray, won: np.ndarray) -> tuple[float, float]:
    """The mean return of successes and of failures; where there are none, that of the others."""
    if won.all() or not won.any():
        return float(returns.mean()), float(returns.mean())
    return float(returns[won].mean()), float(returns[~won].mean())


def fit_chance(features: Features, won: np.ndarray, frames: np.ndarray, data_weight: float) -> Predictor:
    """A logistic regression of ``won`` on ``features``, fitted to the given frames of one task.

    ``data_weight`` is of the frames' mean loss against half the squared weights. Gives what turns frame
    indices into chances; a constant where all the frames were won, or none.
    """
    target = won[frames]
    if target.all() or not target.any():
        certain = float(target[0])
        return lambda wanted: np.full(len(wanted), certain)
    from sklearn.linear_model import LogisticRegression  # here, since it takes a second to import

    known = features(frames)
    mean, scale = known.mean(0), np.maximum(known.std(0), _LEAST_DEVIATION)
    model = LogisticRegression(C=data_weight / len(frames), max_iter=_MOST_ITERATIONS)
    model.fit((known - mean) / scale, target)
    # The weights take the scaling along, so that scoring is one product.
    weights = (model.coef_[0] / scale).astype(np.float32)
    offset = float(model.intercept_[0] - mean @ weights)

    def predict(wanted: np.ndarray) -> np.ndarray:
        logits = np.empty(len(wanted), dtype=np.float64)
        for start in range(0, len(wanted), _BLOCK):
            part = wanted[start : start + _BLOCK]
            logits[start : start + len(part)] = features(part) @ weights
        return 1.0 / (1.0 + np.exp(-(logits + offset)))

    return predict


def chance_by_task(
    table: FrameTable, known: np.ndarray, fit_task: Callable[[np.ndarray], Predictor]
) -> Predictor:
    """One predictor from those that ``fit_task(frames)`` gives for each task; one half for unknown tasks."""
    chances = {task: fit_task(frames) for task, frames in by_task(table, known)}

    def predict(frames: np.ndarray) -> np.ndarray:
        chance = np.full(len(table), 0.5)
        for task, chosen in by_task(table, frames):
            if task in chances:
                chance[chosen] = chances[task](chosen)
        return chance[frames]

    return predict


def spread_within_episodes(table: FrameTable, most: int) -> np.ndarray:
    """Rows of about ``most`` frames (at most), int64, ascending: the same share of every episode.

    All rows where there are no more; otherwise evenly spread within each episode, its first and last frame
    among them, so that there are two of each episode (one of an episode of one frame) whatever ``most`` is.
    """
    if len(table) <= most:
        return np.arange(len(table), dtype=np.int64)
    counts = np.minimum(table.lengths, np.maximum(2, table.lengths * most // len(table)))
    parts = [
        start + np.linspace(0, length - 1, count).round().astype(np.int64)
        for start, length, count in zip(table.starts, table.lengths, counts.tolist(), strict=True)
    ]
    return np.concatenate(parts)


def interpolated(table: FrameTable, seen: np.ndarray, predictor: Predictor) -> Predictor:
    """``predictor`` asked only about frames in ``seen``; those between get what lies between, linearly.

    ``seen``: as :func:`spread_within_episodes` gives them. Where it is all frames, just ``predictor``.
    """
    if len(seen) == len(table):
        return predictor

    def predict(frames: np.ndarray) -> np.ndarray:
        # Of whole episodes: no frame lies between one episode's last and the next one's first.
        asked = np.zeros(len(table.episode_ids), dtype=bool)
        asked[table.episode_index[frames]] = True
        known = seen[asked[table.episode_index[seen]]]
        return np.interp(frames, known, predictor(known))

    return predict
