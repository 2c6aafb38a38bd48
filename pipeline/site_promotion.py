"""``[promotion]`` of ``recap.toml``: when a candidate is promoted, and when its evaluation stops.

::

    [promotion]
    stop_early = true           # look after every round and stop as soon as it is decided
    starts = 200                # of an evaluation, at most
    round_starts = 40           # of a round
    significance = 0.05         # chance of promoting a candidate that is no better, over all looks
    least_chance = 0.05         # given up where the chance of still being promoted is below
    success_loss = 0.05         # guard rail: the success rate may be lower by this share at most
    task_success_loss = 0.1     # the same for each task by itself, where the loss is beyond chance
    more_interventions = 0.0    # guard rail: more interventions an attempt, where that is beyond chance

What is not said stays as the command has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError

LEAST_SIGNIFICANCE = 1e-4
"""The smallest error that the test's 10,000 paths (the results and 9,999 swaps) resolve: one of them."""

_SHARES = ("success_loss", "task_success_loss")
_CHANCES = {
    "significance": "from 0.0001 (the least that the test's 10,000 paths resolve) to below 0.5",
    "least_chance": "from 0 to below 0.5",
}


@dataclass(frozen=True)
class PromotionSection:
    """``[promotion]``; ``None`` where the file does not say."""

    stop_early: bool | None = None
    starts: int | None = None
    round_starts: int | None = None
    significance: float | None = None
    least_chance: float | None = None
    success_loss: float | None = None
    task_success_loss: float | None = None
    more_interventions: float | None = None  # an attempt

    def __post_init__(self) -> None:
        """Rejects values of the wrong type or out of range, and a round longer than the evaluation."""
        if self.stop_early is not None and not isinstance(self.stop_early, bool):
            raise InputError(f"promotion.stop_early must be true or false, not {self.stop_early!r}")
        for name in ("starts", "round_starts"):
            number = getattr(self, name)
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 2):
                raise InputError(f"promotion.{name} must be a whole number, 2 or more, not {number!r}")
        for name, where in _CHANCES.items():
            least = 0.0 if name == "least_chance" else LEAST_SIGNIFICANCE
            _require(name, getattr(self, name), least, 0.5, f"a number {where}", open_end=True)
        for name in _SHARES:
            _require(name, getattr(self, name), 0.0, 1.0, "a share from 0 to 1")
        _require("more_interventions", self.more_interventions, 0.0, 100.0, "a number from 0 to 100")
        if self.starts is not None and self.round_starts is not None and self.round_starts > self.starts:
            raise InputError(
                f"promotion.round_starts is {self.round_starts}, more than promotion.starts, {self.starts}"
            )


def _require(name: str, value: Any, least: float, most: float, words: str, open_end: bool = False) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most or (open_end and value == most):
        raise InputError(f"promotion.{name} must be {words}, not {value!r}")
