"""Which episode is held out from which model: assignments by whole episode, balanced and repeatable.

Frames of one episode look alike, so an episode is never split. On small data a network memorises how
each of its training episodes ended and then sees no advantage anywhere in them; hence every episode
is scored by models of the one fold that did not train on it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.returns import Outcomes, episode_outcomes


def assign_folds(table: FrameTable, outcomes: Outcomes, folds: int, seed: int) -> dict[str, int]:
    """The fold in ``range(folds)`` of each episode that has an outcome; the others are in no fold.

    Depends on the set of (episode, task, outcome) and the seed only, not on their order. Within every
    (task, outcome), and over all, the folds' sizes differ by one at most. Raises ``InputError`` when
    there are fewer such episodes than folds, or fewer than two folds.
    """
    if folds < 2:
        raise InputError(f"{folds} folds: at least 2 are needed so that an episode can be held out")
    order = stratified_order(table, outcomes, f"folds:{seed}")
    if len(order) < folds:
        raise InputError(
            f"{len(order)} episodes have an outcome, too few for {folds} folds: label more episodes as "
            "success or failure"
        )
    return {episode_id: i % folds for i, episode_id in enumerate(order)}


def stratified_order(table: FrameTable, outcomes: Outcomes, salt: str) -> list[str]:
    """The episodes that have an outcome, grouped by (task, outcome), in an order fixed by ``salt``.

    Dealing this list out in turn, like cards, gives parts that are balanced within every group.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    found = episode_outcomes(table, outcomes)
    for episode_id, task, outcome in zip(table.episode_ids, table.tasks, found, strict=True):
        if outcome is not None:
            groups[task, outcome].append(episode_id)
    return [i for key in sorted(groups) for i in sorted(groups[key], key=lambda i: _shuffle_key(i, salt))]


def split_validation(
    table: FrameTable, outcomes: Outcomes, episode_ids: list[str], share: float, salt: str
) -> tuple[list[str], list[str]]:
    """Splits the episodes a fold may see into those it trains on and those that stop its training.

    ``share`` of them, balanced over tasks and outcomes, go into the second list, which is empty when
    ``share`` is 0 or there are too few episodes (fewer than four) to spare one.
    """
    allowed = set(episode_ids)
    order = [i for i in stratified_order(table, outcomes, salt) if i in allowed]
    if share == 0 or len(order) < 4:
        return order, []
    every = max(2, round(1 / share))
    # Starts in the middle of the first round: a group smaller than ``every`` may then still give one.
    held = order[every // 2 :: every]
    return [i for i in order if i not in set(held)], held


def _shuffle_key(episode_id: str, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}:{episode_id}".encode()).digest()
