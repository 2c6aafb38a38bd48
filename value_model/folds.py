"""Which episode is held out from which model: assignments by whole episode, balanced and repeatable.

Frames of one episode look alike, so an episode is never split. On small data a network memorises how
each of its training episodes ended and then sees no advantage anywhere in them; hence every episode
is scored by models of the one fold that did not train on it.

The same recording may be there under two ids (a file that was copied, an import that was repeated). What is
dealt out is therefore the recording, by its content key: all copies are in one fold, and either all or none
of them stop a training. Copies that are labelled differently under one task contradict each other, and no
model can be right about both: they are refused.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping

import numpy as np

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.returns import Outcomes, episode_outcomes


def assign_folds(table: FrameTable, outcomes: Outcomes, folds: int, seed: int) -> dict[str, int]:
    """The fold in ``range(folds)`` of each episode that has an outcome; the others are in no fold.

    Depends on the set of (episode, task, outcome, copies) and the seed only, not on their order. Counting
    each recording once, the folds' sizes differ by one at most within every (task, outcome), and over all.
    Raises ``InputError`` when there are fewer such recordings than folds, fewer than two folds, or copies
    that contradict each other.
    """
    if folds < 2:
        raise InputError(f"{folds} folds: at least 2 are needed so that an episode can be held out")
    order = stratified_order(table, outcomes, f"folds:{seed}")
    if len(order) < folds:
        raise InputError(
            f"{len(order)} episodes have an outcome (copies count once), too few for {folds} folds: label "
            "more episodes as success or failure"
        )
    return {episode_id: i % folds for i, copies in enumerate(order) for episode_id in copies}


def held_out_folds(table: FrameTable, of_episode: Mapping[str, int]) -> np.ndarray:
    """The fold whose models may score each of the table's episodes, int64 ``(E,)``; −1: those of any fold.

    ``of_episode`` is what :func:`assign_folds` gave. An episode without an outcome that is a copy of one
    with an outcome belongs to the fold of that.
    """
    of_content = {
        content: of_episode[episode_id]
        for episode_id, content in zip(table.episode_ids, table.contents, strict=True)
        if episode_id in of_episode
    }
    return np.array([of_content.get(content, -1) for content in table.contents], dtype=np.int64)


def stratified_order(
    table: FrameTable, outcomes: Outcomes, salt: str, among: Collection[str] | None = None
) -> list[tuple[str, ...]]:
    """The recordings that have an outcome, grouped by (task, outcome), in an order fixed by ``salt``.

    Each is the sorted ids of its copies, mostly one; the first id decides its group and place. ``among``:
    only these episodes. Dealing this list out in turn, like cards, gives parts that are balanced within
    every group. Raises ``InputError`` for copies with one task and different outcomes.
    """
    allowed = None if among is None else set(among)
    found = episode_outcomes(table, outcomes)
    kinds: dict[str, tuple[str, str]] = {}
    copies: dict[str, list[str]] = defaultdict(list)
    rows = zip(table.episode_ids, table.contents, table.tasks, found, strict=True)
    for episode_id, content, task, outcome in rows:
        if outcome is not None and (allowed is None or episode_id in allowed):
            kinds[episode_id] = task, outcome
            copies[content].append(episode_id)
    groups: dict[tuple[str, str], list[tuple[str, ...]]] = defaultdict(list)
    for ids in copies.values():
        recording = tuple(sorted(ids))
        _check_alike(recording, kinds)
        groups[kinds[recording[0]]].append(recording)
    return [
        recording
        for kind in sorted(groups)
        for recording in sorted(groups[kind], key=lambda ids: _shuffle_key(ids[0], salt))
    ]


def split_validation(
    table: FrameTable, outcomes: Outcomes, episode_ids: list[str], share: float, salt: str
) -> tuple[list[str], list[str]]:
    """Splits the episodes a fold may see into those it trains on and those that stop its training.

    ``share`` of the recordings, balanced over tasks and outcomes, go into the second list, which is empty
    when ``share`` is 0 or there are too few of them (fewer than four) to spare one.
    """
    order = stratified_order(table, outcomes, salt, episode_ids)
    held: list[tuple[str, ...]] = []
    if share > 0 and len(order) >= 4:
        every = max(2, round(1 / share))
        # Starts in the middle of the first round: a group smaller than ``every`` may then still give one.
        held = order[every // 2 :: every]
    stopping = [episode_id for copies in held for episode_id in copies]
    kept = set(stopping)
    return [i for copies in order for i in copies if i not in kept], stopping


def _check_alike(recording: tuple[str, ...], kinds: Mapping[str, tuple[str, str]]) -> None:
    """Raises ``InputError`` where one recording counts as success and as failure of one task."""
    # Under another task it is another question: what fails at the red cube may succeed at the blue one.
    said: dict[str, str] = {}
    for episode_id in recording:
        task, outcome = kinds[episode_id]
        other = said.setdefault(task, episode_id)
        if kinds[other][1] != outcome:
            raise InputError(
                f"episodes {other} and {episode_id} are the same recording, but one is labelled "
                f"{kinds[other][1]} and the other {outcome}: label both alike, or exclude one ('recap label "
                f"set {episode_id} exclude')"
            )


def _shuffle_key(episode_id: str, salt: str) -> bytes:
    return hashlib.sha256(f"{salt}:{episode_id}".encode()).digest()
