"""What the value model predicts: the normalised Monte-Carlo return of every frame.

The reward of π*0.6 (arXiv 2511.14759, section IV): −1 a step, except at an episode's last frame, where
it is 0 after a success and −C_fail after a failure; γ = 1. For an episode of T frames the return at
frame t is therefore −(T − 1 − t) after a success and −(T − 1 − t) − C_fail after a failure: the
negative number of steps that are left, with a penalty on top.

The unit of time is the second, not the frame: a step of an episode recorded at r Hz costs 1/r. So an
attempt is worth the same however often it was sampled, and a task's episodes may be recorded at
different rates. Where they all have one rate it cancels out, and the returns are those of the paper.

The return is divided by a normaliser of the *task's* own: how long the task's longest labelled episode
lasts (T/r), plus C_fail = ``failure_penalty`` times that. So it lies in [−1, 0]: the longest episode's
first frame has T − 1 steps before it, one less than the normaliser has room for.

Labels decide which episode is a task's longest, and they change after a training. The values of a model stay
in the unit of its training; :func:`unit_factors` brings them into that of the present returns.

*Separation.* A success is worth at least −(T − 1)/r before it is divided, a failure at most −C_fail
(its last frame). Hence every frame of every failure lies below every frame of every success of its task
exactly if C_fail exceeds (T − 1)/r of the task's longest success. ``failure_penalty`` ≥ 1 guarantees
it whatever the data, since no success outlasts the longest episode; below 1 a success that takes a
share ``failure_penalty`` of the longest episode, or more, starts no higher than a failure ends.
With any penalty a failure lies below a success that has as long to go, by C_fail.

Rules about which episodes count:

* An episode without an outcome (unlabelled, or excluded by a person) has no return: NaN, never a
  failure. It does not count towards the longest episode either.
* An episode that was cut off by a crash (truncated) has no outcome, whatever its label says, since
  nobody saw how it would have ended.
* An episode with interventions counts like any other: its outcome is its label, and the return of
  every frame, before, during and after a person's correction, runs to the episode's end. A take-over
  ends no segment: a frame before it is credited with what the person made of it, which keeps the
  return a sum to the end of what really happened. That the correction was better than what the policy
  did is the *indicator's* business (see ``value_model.advantages``), not the return's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.episode import Outcome
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable

# What an episode's outcome may be; ``None`` where it has none.
Outcomes = Mapping[str, str | None]

# C_fail as a fraction of the task's longest episode: one for all tasks, or each task's own.
Penalty = float | Mapping[str, float]

# A duration computed twice may differ in its last digit.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class TaskScale:
    """How one task's returns are scaled, in seconds: its longest episode, C_fail, and their sum."""

    longest_s: float
    failure_penalty_s: float
    normaliser_s: float

    def step_reward(self, rate_hz: float) -> float:
        """The normalised reward of one step at that rate that is not an episode's last: just below 0."""
        return -1.0 / (rate_hz * self.normaliser_s)


def usable_outcomes(labels: Mapping[str, str | None], truncated: Iterable[str] = ()) -> dict[str, str | None]:
    """From labels (``success``, ``failure``, ``exclude`` or ``None``) to outcomes, truncated ones removed.

    Every episode stays a key; what must not be learned from gets ``None``. Raises ``InputError`` for
    any other label.
    """
    cut_off = set(truncated)
    outcomes: dict[str, str | None] = {}
    for episode_id, label in labels.items():
        if label not in (*Outcome, "exclude", None):
            raise InputError(f"episode {episode_id} has the label {label!r}: use success, failure or exclude")
        outcomes[episode_id] = None if label == "exclude" or episode_id in cut_off else label
    return outcomes


def episode_outcomes(table: FrameTable, outcomes: Outcomes) -> list[str | None]:
    """The outcome of each of the table's episodes, in its order.

    An episode that ``outcomes`` does not name has none. Raises ``InputError`` for an outcome that is
    neither ``success`` nor ``failure`` nor ``None``.
    """
    found = [outcomes.get(episode_id) for episode_id in table.episode_ids]
    for episode_id, outcome in zip(table.episode_ids, found, strict=True):
        if outcome not in (*Outcome, None):
            raise InputError(
                f"episode {episode_id} has the outcome {outcome!r}: use success, failure or None"
            )
    return found


def task_scales(table: FrameTable, outcomes: Outcomes, failure_penalty: Penalty) -> dict[str, TaskScale]:
    """Each task's scale, from its episodes that have an outcome; a task without one is left out.

    ``failure_penalty`` is C_fail as a fraction of the task's longest episode (1.0: a failure costs as
    much time as the slowest episode on record took, and is worth less than any success), for all tasks or
    for each. Raises ``InputError`` unless it is positive and finite, and said of every task.
    """
    given = failure_penalty.values() if isinstance(failure_penalty, Mapping) else (failure_penalty,)
    if not all(math.isfinite(fraction) and fraction > 0 for fraction in given):
        raise InputError(
            f"failure_penalty is {failure_penalty}: use a positive fraction of the longest episode"
        )
    longest_s: dict[str, float] = {}
    lasts_s = np.asarray(table.lengths, dtype=np.float64) / table.rates
    for task, seconds, outcome in zip(
        table.tasks, lasts_s.tolist(), episode_outcomes(table, outcomes), strict=True
    ):
        if outcome is not None:
            longest_s[task] = max(longest_s.get(task, 0.0), seconds)
    scales = {}
    for task, seconds in longest_s.items():
        fraction = failure_penalty.get(task) if isinstance(failure_penalty, Mapping) else failure_penalty
        if fraction is None:
            raise InputError(f"failure_penalty {failure_penalty} says nothing of the task {task!r}")
        scales[task] = TaskScale(seconds, fraction * seconds, seconds + fraction * seconds)
    return scales


def episode_returns(length: int, rate_hz: float, outcome: str, scale: TaskScale) -> np.ndarray:
    """The normalised returns of one episode, float64 ``(length,)`` in [−1, 0], rising step by step."""
    left_s = np.arange(length - 1, -1, -1, dtype=np.float64) / rate_hz
    penalty_s = scale.failure_penalty_s if outcome == Outcome.FAILURE else 0.0
    # ``0 - x`` and not ``-x``: the last return of a success is 0, not −0.
    return (0.0 - left_s - penalty_s) / scale.normaliser_s


def frame_returns(table: FrameTable, outcomes: Outcomes, scales: Mapping[str, TaskScale]) -> np.ndarray:
    """Every frame's normalised return, float32 ``(N,)``; NaN throughout an episode without an outcome.

    Raises ``InputError`` when an episode lasts longer than its task's scale allows, since its returns
    would fall below −1: the scales were then made from other episodes.
    """
    returns = np.full(int(np.sum(table.lengths)), np.nan, dtype=np.float32)
    for i, outcome in enumerate(episode_outcomes(table, outcomes)):
        if outcome is None:
            continue
        scale = scales.get(table.tasks[i])
        length, rate_hz = int(table.lengths[i]), float(table.rates[i])
        if scale is None or length / rate_hz > scale.longest_s * (1 + _ROUNDING):
            raise InputError(
                f"episode {table.episode_ids[i]} ({length} frames at {rate_hz:g} Hz, {table.tasks[i]!r}) "
                f"does not fit the scale {scale}: make the scales from the same episodes and outcomes"
            )
        returns[table.frames_of(i)] = episode_returns(length, rate_hz, outcome, scale)
    return returns


def trained_penalty(
    table: FrameTable, outcomes: Outcomes, failure_penalty: Penalty, trained: Mapping[str, TaskScale]
) -> Penalty:
    """The penalty that given values know, for returns that they are to be compared with.

    C_fail was made to be ``failure_penalty`` of a task's longest episode at the training, and is so many
    seconds in every value since (``trained``). Where labels have changed the longest episode, it is
    therefore another fraction of that. ``failure_penalty`` itself where no task has changed.
    """
    now = task_scales(table, outcomes, failure_penalty)
    changed = {
        task: trained[task].failure_penalty_s / scale.longest_s
        for task, scale in now.items()
        if task in trained and not math.isclose(trained[task].longest_s, scale.longest_s, rel_tol=_ROUNDING)
    }
    if not changed:
        return failure_penalty
    said = failure_penalty if isinstance(failure_penalty, Mapping) else dict.fromkeys(now, failure_penalty)
    return {task: changed.get(task, said[task]) for task in now}


def unit_factors(
    table: FrameTable, scales: Mapping[str, TaskScale], trained: Mapping[str, TaskScale]
) -> np.ndarray:
    """What to multiply each frame's value by to have it in the unit of returns under ``scales``; ``(N,)``.

    A value is in the unit of its model's training, the task's normaliser under ``trained``. ``scales`` must
    have the same C_fail in seconds (:func:`trained_penalty`): how much of a value is the penalty cannot be
    seen in it. float32; 1 where either unit is unknown, and exactly 1 where both are the same.
    """
    of_task = {
        task: trained[task].normaliser_s / scale.normaliser_s
        for task, scale in scales.items()
        if task in trained
    }
    of_episode = np.array([of_task.get(task, 1.0) for task in table.tasks], dtype=np.float32)
    return np.repeat(of_episode, np.asarray(table.lengths, dtype=np.int64))


def present_units(
    table: FrameTable, outcomes: Outcomes, failure_penalty: Penalty, trained: Mapping[str, TaskScale]
) -> tuple[Penalty, np.ndarray]:
    """The penalty for the returns of now, and each frame's factor ``(N,)`` that brings a value to their unit.

    Values are in the unit of their training (``trained``), returns in that of ``outcomes``: see
    :func:`trained_penalty` and :func:`unit_factors`.
    """
    penalty = trained_penalty(table, outcomes, failure_penalty, trained)
    return penalty, unit_factors(table, task_scales(table, outcomes, penalty), trained)


def labelled_frames(table: FrameTable, outcomes: Outcomes) -> np.ndarray:
    """Which frames belong to an episode with an outcome, bool ``(N,)``."""
    has_outcome = np.array([o is not None for o in episode_outcomes(table, outcomes)], dtype=bool)
    return np.repeat(has_outcome, np.asarray(table.lengths, dtype=np.int64))
