"""Guard rails: what a candidate must not do worse, however fast it is.

A guard rail says ``failed`` where the candidate is worse by more than the bound and worse beyond chance (the
whole 95 % interval on the same starts lies on that side), ``open`` where it is worse by more than the bound
but that may be chance, and ``passed`` otherwise. While there are starts left, an open one has more of them
run; at the end only the overall success rate holds a candidate back for what may be chance. So a task of
which there were few starts is not judged by noise; and a loss that so few starts cannot show does pass: 100
starts of a task show a loss of 10 points about every second time, 20 starts one of 25. The interval says what
remains possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workflows.comparison import Attempt, Estimate, mean_difference, paired_share
from workflows.promotion_rule import PromotionRule

GuardVerdict = Literal["passed", "open", "failed"]


@dataclass(frozen=True)
class Guard:
    """One guard rail: how much worse the candidate was, with its 95 % interval, and how much it may be.

    ``worse``, ``low``, ``high`` and ``bound`` are in ``unit``: points of the success rate, or interventions
    in 100 attempts. ``strict``: at the last look ``open`` counts as failed.
    """

    name: str
    worse: float
    low: float
    high: float
    bound: float
    unit: str
    starts: int
    verdict: GuardVerdict
    strict: bool = False

    def holds_back(self, last: bool) -> bool:
        """Whether it stands in the way of a promotion, at the ``last`` look or before."""
        return self.verdict == "failed" or (last and self.strict and self.verdict == "open")

    def words(self) -> str:
        """What was found, for the reason of a decision."""
        if self.unit == POINTS:
            what = "succeeds" if self.name == OVERALL else f"succeeds at '{self.name}'"
            said = f"{what} {self.worse:.0f} points less often"
        else:
            said = f"needs {self.worse:.0f} more {self.unit}"
        return f"{said} (95 %: {self.low:.0f} to {self.high:.0f}; allowed: {self.bound:g})"


OVERALL = "success rate"
INTERVENTIONS = "interventions"
POINTS = "points"
_IN_100 = "interventions in 100 attempts"


def guards(candidate: Sequence[Attempt], reference: Sequence[Attempt], rule: PromotionRule) -> list[Guard]:
    """Every guard rail: all tasks together, each task where there are several, interventions."""
    found = [_success(OVERALL, candidate, reference, rule.success_loss, strict=True)]
    tasks = list(dict.fromkeys(a.task for a in candidate))
    for task in tasks if len(tasks) > 1 else []:
        of_task = [[a for a in one if a.task == task] for one in (candidate, reference)]
        found.append(_success(task, of_task[0], of_task[1], rule.task_success_loss))
    more = [c.interventions - r.interventions for c, r in zip(candidate, reference, strict=True)]
    worse = mean_difference(more)
    found.append(_guard(INTERVENTIONS, worse, rule.more_interventions, _IN_100, len(more)))
    return found


def _success(
    name: str, candidate: Sequence[Attempt], reference: Sequence[Attempt], bound: float, strict: bool = False
) -> Guard:
    pairs = [(c.success, r.success) for c, r in zip(candidate, reference, strict=True)]
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    return _guard(name, paired_share(lost, gained, len(pairs)), bound, POINTS, len(pairs), strict)


def _guard(name: str, worse: Estimate, bound: float, unit: str, starts: int, strict: bool = False) -> Guard:
    # A loss of just the bound is allowed, whatever binary fractions make of it.
    beyond = worse.value > bound + 1e-9
    verdict: GuardVerdict = "passed" if not beyond else "failed" if worse.low > 0 else "open"
    low, high = 100 * worse.low, 100 * worse.high
    return Guard(name, 100 * worse.value, low, high, 100 * bound, unit, starts, verdict, strict)
