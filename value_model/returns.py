"""What the value model predicts: the normalised Monte-Carlo return of every frame.

The reward of π*0.6 (arXiv 2511.14759, section IV): −1 a step, except at an episode's last frame, where
it is 0 after a success and −C_fail after a failure; γ = 1. For an episode of T frames the return at
frame t is therefore −(T − 1 − t) after a success and −(T − 1 − t) − C_fail after a failure: the
negative number of steps that are left, with a penalty on top. It is divided by a normaliser of the
*task's* own, the task's longest labelled episode plus C_fail (both in frames), and so lies in [−1, 0].

Rules about which episodes count:

* An episode without an outcome (unlabelled, or excluded by a person) has no return: NaN, never a
  failure. It does not count towards the longest episode either.
* An episode that was cut off by a crash (truncated) has no outcome, whatever its label says, since
  nobody saw how it would have ended.
* An episode with interventions counts like any other: its outcome is its label, and the return of
  every frame, before, during and after a person's correction, runs to the episode's end. A frame
  before a take-over is thus credited with what the person made of it; that the correction was better
  than what the policy did is the *indicator's* business, not the return's.
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


@dataclass(frozen=True)
class TaskScale:
    """How one task's returns are scaled; all three in frames (control steps)."""

    longest: int
    failure_penalty: float
    normaliser: float

    @property
    def step_reward(self) -> float:
        """The normalised reward of one step that is not an episode's last, a little below 0."""
        return -1.0 / self.normaliser


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


def task_scales(table: FrameTable, outcomes: Outcomes, failure_penalty: float) -> dict[str, TaskScale]:
    """Each task's scale, from its episodes that have an outcome; a task without one is left out.

    ``failure_penalty`` is C_fail as a fraction of the task's longest episode (1.0: a failure costs as
    much as the slowest episode on record). Raises ``InputError`` unless it is positive and finite.
    """
    if not (math.isfinite(failure_penalty) and failure_penalty > 0):
        raise InputError(
            f"failure_penalty is {failure_penalty}: use a positive fraction of the longest episode"
        )
    longest: dict[str, int] = {}
    for task, length, outcome in zip(
        table.tasks, table.lengths, episode_outcomes(table, outcomes), strict=True
    ):
        if outcome is not None:
            longest[task] = max(longest.get(task, 0), int(length))
    return {
        task: TaskScale(frames, failure_penalty * frames, frames + failure_penalty * frames)
        for task, frames in longest.items()
    }


def episode_returns(length: int, outcome: str, scale: TaskScale) -> np.ndarray:
    """The normalised returns of one episode, float64 ``(length,)`` in [−1, 0], rising step by step."""
    left = np.arange(length - 1, -1, -1, dtype=np.float64)
    penalty = scale.failure_penalty if outcome == Outcome.FAILURE else 0.0
    # ``0 - x`` and not ``-x``: the last return of a success is 0, not −0.
    return (0.0 - left - penalty) / scale.normaliser


def frame_returns(table: FrameTable, outcomes: Outcomes, scales: Mapping[str, TaskScale]) -> np.ndarray:
    """Every frame's normalised return, float32 ``(N,)``; NaN throughout an episode without an outcome.

    Raises ``InputError`` when an episode is longer than its task's scale allows, since its returns
    would fall below −1: the scales were then made from other episodes.
    """
    returns = np.full(int(np.sum(table.lengths)), np.nan, dtype=np.float32)
    for i, outcome in enumerate(episode_outcomes(table, outcomes)):
        if outcome is None:
            continue
        scale = scales.get(table.tasks[i])
        length, start = int(table.lengths[i]), int(table.starts[i])
        if scale is None or length > scale.longest:
            raise InputError(
                f"episode {table.episode_ids[i]} ({length} frames, {table.tasks[i]!r}) does not fit the "
                f"scale {scale}: make the scales from the same episodes and outcomes"
            )
        returns[start : start + length] = episode_returns(length, outcome, scale)
    return returns


def labelled_frames(table: FrameTable, outcomes: Outcomes) -> np.ndarray:
    """Which frames belong to an episode with an outcome, bool ``(N,)``."""
    has_outcome = np.array([o is not None for o in episode_outcomes(table, outcomes)], dtype=bool)
    return np.repeat(has_outcome, np.asarray(table.lengths, dtype=np.int64))
