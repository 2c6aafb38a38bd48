"""A summary of a stream of actions in bounded memory that merges exactly.

Quantiles come from counts in buckets of a fixed relative width, as in DDSketch (Masson, Rim and Lee,
VLDB 2019), whose property it is that the buckets do not depend on the data: two summaries merge by
adding counts. Buckets are not powers of a base, found by a logarithm, but the leading bits of the
float32 numbers themselves: faster, and the same on every machine. Means and deviations come from sums
in integers. So the same actions give the same summary, to the last bit, in whatever order and in
however many parts they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Self

import numpy as np

from pipeline.action_statistics import HIGH, LOW, ActionStatistics
from pipeline.errors import InputError
from pipeline.exchange.action_spaces import ActionSpace, action_names

MANTISSA_BITS = 13
RELATIVE_ERROR = 2.0 ** -(MANTISSA_BITS + 1)
"""Largest relative error of a bucket's middle against any value in it: 6.1e-5."""

_DROPPED_BITS = 23 - MANTISSA_BITS
_EXPONENTS = 256  # of a float32, so that every value has an entry of its own
_ROWS_PER_BLOCK = 1 << 16
# float32 with exponent field e and mantissa m is (m + 2^23) * 2^(e - 150).
_BIAS = 150
_HALF_BITS = 12
_HALF = 1 << _HALF_BITS


@dataclass
class _Column:
    """One component: buckets in use (sorted) with their counts, and integer sums by exponent."""

    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    sums: np.ndarray = field(default_factory=lambda: np.zeros(_EXPONENTS, np.int64))
    # A mantissa is high * 2^12 + low: its square is a sum of three products, each small enough to add up.
    squares: np.ndarray = field(default_factory=lambda: np.zeros((3, _EXPONENTS), np.int64))
    min: float = np.inf
    max: float = -np.inf

    def add(self, values: np.ndarray) -> None:
        """Counts ``values``, finite float32 (N,) with N at most a block."""
        values = np.where(np.abs(values) < np.finfo(np.float32).tiny, np.float32(0), values)
        bits = values.view(np.int32)
        magnitude = bits & 0x7FFFFFFF
        negative = bits < 0
        bucket = magnitude >> _DROPPED_BITS
        keys, counts = np.unique(np.where(negative, -bucket, bucket), return_counts=True)
        self._count(keys.astype(np.int32), counts.astype(np.int64))
        exponent = magnitude >> 23
        mantissa = np.where(magnitude > 0, (magnitude & 0x7FFFFF) | 0x800000, 0)
        self.sums += _sum_by(exponent, np.where(negative, -mantissa, mantissa))
        high, low = mantissa >> _HALF_BITS, mantissa & (_HALF - 1)
        products = (high * high, high * low, low * low)
        self.squares += np.stack([_sum_by(exponent, product) for product in products])
        self.min, self.max = min(self.min, float(values.min())), max(self.max, float(values.max()))

    def merge(self, other: _Column) -> None:
        """Adds what ``other`` has counted."""
        self._count(other.keys, other.counts)
        self.sums += other.sums
        self.squares += other.squares
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)

    def quantile(self, q: float) -> float:
        """As numpy's: at rank q (n - 1), straight between the two values beside it."""
        ends = np.cumsum(self.counts)
        rank = q * (int(ends[-1]) - 1)
        below = int(np.floor(rank))
        first, second = (
            self._value(int(np.searchsorted(ends, i, "right"))) for i in (below, int(np.ceil(rank)))
        )
        return first + (second - first) * (rank - below)

    def moments(self, count: int) -> tuple[float, float]:
        """Mean and standard deviation, correctly rounded but for the square root."""
        total, squares = Fraction(0), Fraction(0)
        for exponent in np.flatnonzero(self.sums | self.squares.any(axis=0)):
            unit = Fraction(2) ** (int(exponent) - _BIAS)
            high, mixed, low = (int(s[exponent]) for s in self.squares)
            total += int(self.sums[exponent]) * unit
            squares += (high * _HALF * _HALF + 2 * mixed * _HALF + low) * unit * unit
        mean = total / count
        return float(mean), float(np.sqrt(float(squares / count - mean * mean)))

    def _count(self, keys: np.ndarray, counts: np.ndarray) -> None:
        together, inverse = np.unique(np.concatenate([self.keys, keys]), return_inverse=True)
        totals = np.zeros(len(together), np.int64)
        np.add.at(totals, inverse, np.concatenate([self.counts, counts]))
        self.keys, self.counts = together, totals

    def _value(self, index: int) -> float:
        key = int(self.keys[index])
        if key == 0:
            return min(max(0.0, self.min), self.max)
        edges = np.array([abs(key), abs(key) + 1], np.int32) << _DROPPED_BITS
        middle = float(edges.view(np.float32).astype(np.float64).mean()) * (1 if key > 0 else -1)
        return min(max(middle, self.min), self.max)


class ActionSketch:
    """The summary of one robot's actions in one action space. Start with none, :meth:`update`, :meth:`merge`.

    It can be pickled, to come back from another process.
    """

    def __init__(self, robot: str, action_space: ActionSpace) -> None:
        """No actions yet."""
        self.robot = robot
        self.action_space = action_space
        self.count = 0
        self._columns = [_Column() for _ in action_names(action_space)]
        # Episodes are short: sorting a few hundred rows into the buckets at a time would be 100 times slower.
        self._waiting: list[np.ndarray] = []
        self._waiting_rows = 0

    def update(self, actions: np.ndarray) -> None:
        """Adds ``actions`` (N, k), rounded to float32.

        Raises ``InputError``, and adds nothing, if the width is wrong or a number is not finite.
        """
        values = np.asarray(actions, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != len(self._columns):
            raise InputError(
                f"actions have shape {values.shape}, in the action space {self.action_space} they must be "
                f"(N, {len(self._columns)})"
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise InputError(f"the action of frame {bad[0]} is not finite")
        self._waiting.append(values.copy())
        self._waiting_rows += len(values)
        self.count += len(values)
        if self._waiting_rows >= _ROWS_PER_BLOCK:
            self._settle()

    def merge(self, other: Self) -> None:
        """Adds all that ``other`` has seen. Raises ``InputError`` for another robot or action space."""
        if (self.robot, self.action_space) != (other.robot, other.action_space):
            raise InputError(
                f"statistics of {other.robot} in {other.action_space} do not belong to those of "
                f"{self.robot} in {self.action_space}"
            )
        self._settle()
        other._settle()
        for column, others in zip(self._columns, other._columns, strict=True):
            column.merge(others)
        self.count += other.count

    def quantiles(self, q: float) -> tuple[float, ...]:
        """Each component's quantile ``q`` in [0, 1], as numpy's.

        The two values that it lies between are known within :data:`RELATIVE_ERROR`.
        """
        self._require_actions()
        return tuple(column.quantile(q) for column in self._columns)

    def statistics(self) -> ActionStatistics:
        """Statistics of all actions so far; the percentiles within :data:`RELATIVE_ERROR`, the rest exact.

        Raises ``InputError`` if there were none.
        """
        self._require_actions()
        moments = [column.moments(self.count) for column in self._columns]
        return ActionStatistics(
            robot=self.robot,
            action_space=self.action_space,
            count=self.count,
            q01=self.quantiles(LOW),
            q99=self.quantiles(HIGH),
            min=tuple(column.min for column in self._columns),
            max=tuple(column.max for column in self._columns),
            mean=tuple(mean for mean, _ in moments),
            std=tuple(std for _, std in moments),
        )

    def _require_actions(self) -> None:
        if not self.count:
            raise InputError(f"there is no action of robot {self.robot!r} to take statistics of")
        self._settle()

    def _settle(self) -> None:
        """Sorts what waits into the buckets."""
        if not self._waiting_rows:
            return
        values = np.concatenate(self._waiting)
        self._waiting, self._waiting_rows = [], 0
        for start in range(0, len(values), _ROWS_PER_BLOCK):
            block = values[start : start + _ROWS_PER_BLOCK]
            for column, components in zip(self._columns, block.T, strict=True):
                column.add(np.ascontiguousarray(components))


def merged(sketches: Sequence[ActionSketch]) -> list[ActionSketch]:
    """One sketch for each robot and action space among ``sketches``, sorted; the parts stay as they are."""
    totals: dict[tuple[str, ActionSpace], ActionSketch] = {}
    for sketch in sketches:
        key = (sketch.robot, sketch.action_space)
        totals.setdefault(key, ActionSketch(*key)).merge(sketch)
    return [totals[key] for key in sorted(totals)]


def _sum_by(exponent: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Integer sums of ``values`` for each exponent: exact, as a block's sum is below 2^53."""
    return np.bincount(exponent, weights=values, minlength=_EXPONENTS).astype(np.int64)
