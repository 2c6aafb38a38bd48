"""What the gate judges by itself: every task that has episodes enough, and the other tasks together.

Values of one task may be sound and those of another noise, and numbers over both would still look fair. So
what can be asked of a task alone is asked of it alone, and one that fails closes the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from pipeline.episode import Outcome
from pipeline.frame_table import FrameTable
from value_model.gate_config import GateConfig
from value_model.gate_report import Check, Verdict
from value_model.returns import Outcomes, episode_outcomes

_MOST_NAMED = 4
# Of what these checks measure less is better; of all others more is.
_LOW_IS_GOOD = ("calibration", "first value")


@dataclass(frozen=True)
class Group:
    """Tasks that are judged together.

    name: how a sentence says where ("" where all tasks are in it). outcomes: those of its episodes; all
    others have none. sure: whether there are episodes enough for a failure to be more than chance.
    """

    name: str
    tasks: tuple[str, ...]
    outcomes: Outcomes
    sure: bool

    def frames(self, table: FrameTable) -> np.ndarray:
        """Which frames belong to its episodes that have an outcome, bool ``(N,)``."""
        known = np.array([o is not None for o in episode_outcomes(table, self.outcomes)], dtype=bool)
        return known[table.episode_index]


def outcome_counts(table: FrameTable, outcomes: Outcomes) -> dict[str, dict[Outcome, int]]:
    """How many episodes of each outcome a task has, in the tasks' order."""
    found = np.array([o or "" for o in episode_outcomes(table, outcomes)], dtype=object)
    tasks = np.array(table.tasks, dtype=object)
    return {
        task: {o: int(((tasks == task) & (found == o)).sum()) for o in Outcome}
        for task in dict.fromkeys(table.tasks)
    }


def judged_groups(table: FrameTable, outcomes: Outcomes, config: GateConfig) -> list[Group]:
    """A group for every task with ``fewest_episodes`` of either outcome, and one for all others."""
    counts = outcome_counts(table, outcomes)
    rarer = {task: min(count.values()) for task, count in counts.items()}
    alone = [task for task in counts if rarer[task] >= config.fewest_episodes]
    rest = tuple(task for task in counts if task not in alone)
    only = len(counts) == 1 or not alone
    groups = [_group(table, outcomes, (task,), "" if only else f"in {task!r} ", True) for task in alone]
    if rest:
        sure = sum(rarer[task] for task in rest) >= config.fewest_episodes
        others = f"in {rest[0]!r} " if len(rest) == 1 else f"in the other {len(rest)} tasks "
        groups.append(_group(table, outcomes, rest, "" if only else others, sure))
    return groups


def worst(groups: Sequence[Group], ask: Callable[[Group], Check | None]) -> Check | None:
    """The answer of the group with the worst one, and which others have that verdict, unless it is a pass.

    ``None`` where no group has an answer. Of equal verdicts the one counts that lies farthest on the wrong
    side of its bound, or nearest to it.
    """
    answers = [(group, check) for group in groups if (check := ask(group)) is not None]
    if not answers:
        return None
    order: tuple[Verdict, ...] = get_args(Verdict)
    verdict = max((check.verdict for _, check in answers), key=order.index)
    alike = [(group, check) for group, check in answers if check.verdict == verdict]
    group, check = max(alike, key=lambda found: _excess(found[1]))
    others = [task for other, _ in alike if other is not group for task in other.tasks]
    if verdict == "pass" or not others:
        return check
    shown = ", ".join(repr(task) for task in others[:_MOST_NAMED]) + (", …" if others[_MOST_NAMED:] else "")
    return replace(check, sentence=f"{check.sentence} The verdict is the same on {shown}.")


def _excess(check: Check) -> float:
    """How far a check is from where it ought to be; infinite without a number."""
    if check.measured is None or check.bound is None:
        return np.inf
    gap = check.measured - check.bound
    return gap if check.name in _LOW_IS_GOOD else -gap


def _group(table: FrameTable, outcomes: Outcomes, tasks: tuple[str, ...], name: str, sure: bool) -> Group:
    of_task = dict(zip(table.episode_ids, table.tasks, strict=True))
    kept = {i: outcomes.get(i) if task in tasks else None for i, task in of_task.items()}
    return Group(name, tasks, kept, sure)
