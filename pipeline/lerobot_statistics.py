"""The statistics that LeRobot keeps of a dataset's columns, of many episodes at once."""

from __future__ import annotations

from typing import Final

import numpy as np

QUANTILES: Final = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def segment_statistics(values: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of each of S runs of rows, which are ``lengths`` (S,) rows long and follow each other.

    ``values`` is (N,) or (N, k), of any numeric type, N the sum of the lengths, each above 0. Gives
    ``min``, ``max``, ``mean``, ``std`` (of the population) and the :data:`QUANTILES` (linear between
    ranks), each float64 (S, k), and ``count`` int64 (S, 1).
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    rows = values.reshape(len(values), -1).astype(np.float64)
    starts = np.cumsum(lengths) - lengths
    mean = np.add.reduceat(rows, starts, axis=0) / lengths[:, None]
    squares = (rows - np.repeat(mean, lengths, axis=0)) ** 2
    ordered = _ordered_within(rows, lengths)
    return {
        "min": ordered[starts],
        "max": ordered[starts + lengths - 1],
        "mean": mean,
        "std": np.sqrt(np.add.reduceat(squares, starts, axis=0) / lengths[:, None]),
        "count": lengths[:, None],
        **{name: _quantile(ordered, starts, lengths, share) for name, share in QUANTILES.items()},
    }


def statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """As :func:`segment_statistics` of all rows as one run: each (k,), ``count`` (1,)."""
    return {name: found[0] for name, found in segment_statistics(values, np.array([len(values)])).items()}


def _ordered_within(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``rows`` with each column sorted within each run."""
    if len(lengths) == 1:
        return np.sort(rows, axis=0)
    run = np.repeat(np.arange(len(lengths)), lengths)
    return np.stack([column[np.lexsort((column, run))] for column in rows.T], axis=1)


def _quantile(ordered: np.ndarray, starts: np.ndarray, lengths: np.ndarray, share: float) -> np.ndarray:
    rank = share * (lengths - 1)
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, lengths - 1)
    low, high = ordered[starts + below], ordered[starts + above]
    return low + (high - low) * (rank - below)[:, None]
