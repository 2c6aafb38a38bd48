"""Made-up evaluations on the same starts, like the simulator's: hard starts are hard for every policy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workflows.comparison import Attempt

TASKS = ("pick up the red cube", "pick up the blue cube")
# How alike two policies find the starts: the correlation of what lies behind success.
ALIKE = 0.5
LONGEST_S = 8.0


@dataclass(frozen=True)
class Skill:
    """A policy: its success rate, and robot seconds of a success (median) and of a failure."""

    rate: float
    success_s: float
    failure_s: float

    @property
    def per_hour(self) -> float:
        """Successes per robot hour, on average; the time of a success is log-normal and bounded."""
        drawn = np.random.default_rng(0).normal(size=200_000)
        spent = np.minimum(self.success_s * np.exp(0.25 * drawn), LONGEST_S).mean()
        return float(3600 * self.rate / (self.rate * spent + (1 - self.rate) * self.failure_s))


BASE = Skill(0.62, 3.9, 6.4)  # 453 an hour, as the demo's base policy
RECAP = Skill(0.80, 3.1, 7.0)  # 728 an hour, as its RECAP
# As fast as the base in successes per hour, in an unlike way: surer and slower.
SLOW_AND_SURE = Skill(0.80, 5.904, 7.9)
LITTLE_BETTER = Skill(0.68, 3.8, 6.4)
BETTER = Skill(0.72, 3.7, 6.5)


def evaluations(
    candidate: Skill, reference: Skill, starts: int, rng: np.random.Generator
) -> tuple[list[Attempt], list[Attempt]]:
    """What both did on the same starts."""
    hard = rng.normal(size=starts)
    return _evaluation(candidate, hard, rng), _evaluation(reference, hard, rng)


@lru_cache(maxsize=64)
def _easiest(rate: float) -> float:
    """How hard a start may be for a policy with that success rate."""
    return float(np.quantile(np.random.default_rng(1).normal(size=100_000), rate))


def _evaluation(skill: Skill, hard: np.ndarray, rng: np.random.Generator) -> list[Attempt]:
    own = np.sqrt(ALIKE) * hard + np.sqrt(1 - ALIKE) * rng.normal(size=len(hard))
    success = own < _easiest(skill.rate)
    spent = np.where(
        success,
        np.minimum(skill.success_s * np.exp(0.25 * rng.normal(size=len(hard))), LONGEST_S),
        skill.failure_s,
    )
    return [
        Attempt(TASKS[i % 2], 1_000_000 + i, bool(won), round(10 * s), round(s, 1))
        for i, (won, s) in enumerate(zip(success, spent, strict=True))
    ]
