"""Does a dropped cube show in the values within a second? And does a cube that is not dropped?

The *fall* at a frame is the mean value of the five frames before it, less the lowest mean of three
successive frames among the ten frames (1 s at 10 Hz) after it. It counts as seen when it exceeds what
values do from one frame to the next anyway: the robust standard deviation (1.4826 x the median absolute
deviation) of their one-frame changes. The same is asked of lifts of the same heights without a drop, in
which an equally large fall is a false alarm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from collectors.clumsy_operator import Drop
from pipeline.episode import Outcome
from pipeline.frame_table import FrameTable
from tests.benchmarks.value_quality_data import lift_frames
from value_model.returns import Outcomes

BEFORE, WITHIN, MEAN_OF = 5, 10, 3


@dataclass(frozen=True)
class DropDetection:
    """``seen``: the share of ``cases`` drops; ``false_alarms``: of ``controls`` lifts without one.

    ``noise`` is the bound, in values; ``falls`` are those of the drops, and ``gave_up`` tells after which
    nobody picked the cube up again.
    """

    cases: int
    seen: float
    controls: int
    false_alarms: float
    noise: float
    falls: np.ndarray
    gave_up: np.ndarray


def fall(values: np.ndarray, frame: int) -> float:
    """How far one episode's values ``(T,)`` fall within a second after ``frame``; negative if they rise."""
    after = values[frame + 1 : frame + 1 + WITHIN]
    means = [after[k : k + MEAN_OF].mean() for k in range(max(1, len(after) - MEAN_OF + 1))]
    return float(values[max(0, frame - BEFORE) : frame].mean() - min(means))


def frame_noise(table: FrameTable, values: np.ndarray) -> float:
    """The robust standard deviation of the values' changes from one frame to the next."""
    changes = np.concatenate([np.diff(values[table.frames_of(i)]) for i in range(len(table.episode_ids))])
    return float(1.4826 * np.median(np.abs(changes - np.median(changes))))


def detect(
    planted: FrameTable,
    planted_values: np.ndarray,
    drops: Mapping[str, Drop],
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
) -> DropDetection:
    """The falls at the planted ``drops``, and at the same heights in the successes of ``table``."""
    noise = frame_noise(table, values)
    falls, gave_up, heights = [], [], []
    for i, episode_id in enumerate(planted.episode_ids):
        if (drop := drops.get(episode_id)) is not None:
            falls.append(fall(planted_values[planted.frames_of(i)], drop.let_go))
            gave_up.append(drop.gave_up)
            heights.append(drop.height)
    lifts = []
    won = [i for i, e in enumerate(table.episode_ids) if outcomes.get(e) == Outcome.SUCCESS]
    for k, i in enumerate(won):
        frame = lift_frames(table, i, heights[k % len(heights)])
        if frame is not None and frame + 1 < table.lengths[i]:
            lifts.append(fall(values[table.frames_of(i)], frame))
    return DropDetection(
        len(falls),
        float(np.mean(np.array(falls) > noise)),
        len(lifts),
        float(np.mean(np.array(lifts) > noise)),
        noise,
        np.array(falls),
        np.array(gave_up),
    )
