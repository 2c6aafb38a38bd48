"""Keeps a control loop at its rate, and measures how well: late steps and the jitter of the period."""

from __future__ import annotations

import time
from array import array
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PaceReport:
    """How a loop kept its rate.

    ``overruns`` counts the steps whose work took longer than their period. Jitter is by how much a period,
    from the beginning of one step to that of the next, differed from the one asked for, in ms.
    """

    steps: int = 0
    rate_hz: float = 0.0
    overruns: int = 0
    p50_jitter_ms: float = 0.0
    p99_jitter_ms: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For the episode's attributes, rounded to a microsecond."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


class Pace:
    """Waits for the next period of a fixed rate.

    Periods lie on a grid, so that small delays do not add up to a lower rate. A step that ends less than
    half a period late is made up for by the next one; after a longer delay the backlog is dropped and a new
    grid begins: an arm must never be rushed through commands that are late.
    """

    def __init__(self, rate_hz: float) -> None:
        """The first period begins with :meth:`start`."""
        self.period_s = 1.0 / rate_hz
        self.overruns = 0
        self._began_s = array("d")
        self._next_s = 0.0

    def start(self) -> None:
        """Begins the first period now."""
        now = time.monotonic()
        self._began_s.append(now)
        self._next_s = now + self.period_s

    def wait(self) -> None:
        """Sleeps until the next period begins; returns at once when it has begun already."""
        now = time.monotonic()
        if now < self._next_s:
            time.sleep(self._next_s - now)
            now = time.monotonic()
        else:
            self.overruns += 1
            if now - self._next_s > self.period_s / 2:
                self._next_s = now
        self._next_s += self.period_s
        self._began_s.append(now)

    @property
    def rate_hz(self) -> float:
        """Measured over about the last second; 0 before the second period."""
        count = min(len(self._began_s) - 1, max(1, round(1.0 / self.period_s)))
        if count < 1:
            return 0.0
        return count / max(self._began_s[-1] - self._began_s[-1 - count], 1e-9)

    def report(self) -> PaceReport:
        """The figures of all periods so far."""
        periods = np.diff(np.array(self._began_s))
        if not len(periods):
            return PaceReport(len(self._began_s), 0.0, self.overruns)
        p50, p99 = np.percentile(np.abs(periods - self.period_s) * 1e3, (50, 99))
        rate_hz = len(periods) / max(float(periods.sum()), 1e-9)
        return PaceReport(len(self._began_s), rate_hz, self.overruns, float(p50), float(p99))


@dataclass(frozen=True)
class LoopConfig:
    """How an episode is paced and when it ends by itself.

    ``real_time`` waits for the wall clock between steps, as a real arm needs; a simulator does not.
    """

    rate_hz: float = 10.0
    max_steps: int = 80
    real_time: bool = True

    def __post_init__(self) -> None:
        """Rejects a loop that could not run."""
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz is {self.rate_hz}; it must be above 0")
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}; it must be at least 1")


class SimulatedClock:
    """Nanoseconds that advance by one control period a frame, so that simulated episodes are repeatable."""

    def __init__(self, rate_hz: float, start_ns: int = 1_700_000_000_000_000_000) -> None:
        """``start_ns`` is arbitrary: only differences mean something."""
        self._period_ns = round(1e9 / rate_hz)
        self._now_ns = start_ns

    def __call__(self) -> int:
        """The time of the next frame."""
        self._now_ns += self._period_ns
        return self._now_ns
