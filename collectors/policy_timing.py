"""How well a policy that plans ahead kept up with its loop: latencies, ages, how near it was to starving."""

from __future__ import annotations

from array import array
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PlanReport:
    """How fast the plans of one episode came.

    ``plans`` came since its first step. *Latency* is from an observation being handed in to its chunk being
    there; *age* is how long before an action's execution the observation was handed in that it was planned
    from; both in ms. ``least_left`` is how many actions the old chunk still had when the next one came, at
    the least: 0 where the queue was empty, ``None`` where no chunk followed another.
    """

    plans: int = 0
    p50_latency_ms: float = 0.0
    p99_latency_ms: float = 0.0
    max_latency_ms: float = 0.0
    p50_age_ms: float = 0.0
    p99_age_ms: float = 0.0
    least_left: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For the episode's attributes, rounded to a microsecond."""
        return {name: value if value is None else round(value, 3) for name, value in asdict(self).items()}


class PlanTimes:
    """Collects what a :class:`PlanReport` tells; a few bytes a step. Not for two threads at once."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._latencies_s = array("d")
        self._ages_s = array("d")
        self._least_left: int | None = None

    def came(self, latency_s: float) -> None:
        """A plan was there after so long."""
        self._latencies_s.append(latency_s)

    def followed(self, left: int) -> None:
        """A chunk took the place of one that had ``left`` actions, 0 or more."""
        self._least_left = left if self._least_left is None else min(self._least_left, left)

    def executed(self, age_s: float) -> None:
        """An action was given out, so long after the observation that it was planned from."""
        self._ages_s.append(age_s)

    def report(self) -> PlanReport:
        """The figures so far."""
        p50, p99, most = np.percentile(np.array(self._latencies_s or [0.0]) * 1e3, (50, 99, 100)).tolist()
        p50_age, p99_age = np.percentile(np.array(self._ages_s or [0.0]) * 1e3, (50, 99)).tolist()
        return PlanReport(len(self._latencies_s), p50, p99, most, p50_age, p99_age, self._least_left)
