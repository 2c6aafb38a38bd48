"""Which frames make up a training batch: a fixed share of positives, every frame in its turn."""

from __future__ import annotations

import math

import numpy as np

from pipeline.errors import InputError
from pipeline.prompts import POSITIVE, check_indicators


class BatchSampler:
    """Draws batches of frame indices from one or two groups of frames.

    Each group is walked in a new random order again and again, so within a group no frame comes up
    twice before all others have come up once.
    """

    def __init__(self, groups: list[np.ndarray], shares: list[float], rng: np.random.Generator) -> None:
        """``groups`` are arrays of frame indices, none empty; ``shares`` of a batch add up to 1."""
        if not groups or any(len(group) == 0 for group in groups):
            raise InputError("no frames to train on: check the frame mask and the labels")
        self._groups = groups
        self._shares = shares
        self._rng = rng
        self._orders: list[np.ndarray] = [np.empty(0, dtype=np.int64) for _ in groups]
        self._drawn = 0

    def draw(self, size: int) -> np.ndarray:
        """The frame indices of the next batch, int64 (size,), group after group.

        Over many batches each group gets exactly its share, also where share × size is not whole.
        """
        self._drawn += size
        counts: list[int] = []
        for share in self._shares[:-1]:
            before = math.floor((self._drawn - size) * share + 1e-9)
            counts.append(math.floor(self._drawn * share + 1e-9) - before)
        counts.append(size - sum(counts))
        return np.concatenate([self._take(group, count) for group, count in enumerate(counts)])

    def state(self) -> tuple[dict[str, np.ndarray], int]:
        """Where each group's walk is, int64 arrays by the group's number, and how many were drawn.

        With the state of the generator, which is the caller's, it decides all batches to come.
        """
        return {str(group): order for group, order in enumerate(self._orders)}, self._drawn

    def restore(self, orders: dict[str, np.ndarray], drawn: int) -> None:
        """Goes on as from :meth:`state`, of a sampler of the same groups and shares."""
        self._orders = [orders[str(group)] for group in range(len(self._groups))]
        self._drawn = drawn

    def _take(self, group: int, count: int) -> np.ndarray:
        order = self._orders[group]
        while len(order) < count:
            order = np.concatenate([order, self._rng.permutation(self._groups[group])])
        self._orders[group] = order[count:]
        return order[:count]


def make_sampler(
    indicators: np.ndarray,
    frame_mask: np.ndarray | None,
    positive_share: float | None,
    rng: np.random.Generator,
) -> BatchSampler:
    """The sampler of a training run over the N frames of a table.

    ``indicators`` (N,) int8; ``frame_mask`` (N,) bool, True where a frame may be drawn (``None``: all).
    Without ``positive_share``, or where the frames are all positive or none is, sampling is uniform.
    Raises ``InputError`` when the arrays do not fit or no frame is left.
    """
    check_indicators(indicators)
    allowed = np.ones(len(indicators), dtype=bool) if frame_mask is None else frame_mask
    if allowed.shape != indicators.shape or allowed.dtype != np.bool_:
        raise InputError(
            f"the frame mask is {allowed.dtype} {allowed.shape}: use bool ({len(indicators)},), one per frame"
        )
    positive = np.flatnonzero(allowed & (indicators == POSITIVE))
    other = np.flatnonzero(allowed & (indicators != POSITIVE))
    if positive_share is None or not len(positive) or not len(other):
        return BatchSampler([np.flatnonzero(allowed)], [1.0], rng)
    if positive_share in (0.0, 1.0):
        return BatchSampler([positive if positive_share else other], [1.0], rng)
    return BatchSampler([positive, other], [positive_share, 1.0 - positive_share], rng)
