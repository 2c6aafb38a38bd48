"""How good values are: whether they follow the return, tell success from failure, and mean what they say."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.episode import Outcome, Source
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.prompts import NONE, POSITIVE
from value_model.returns import Outcomes, episode_outcomes, frame_returns, labelled_frames, task_scales

EPISODE_PARTS = (0.25, 0.5, 0.75)
RELIABILITY_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Frames whose value lies in [low, high): their number, mean value and mean return."""

    low: float
    high: float
    frames: int
    mean_value: float
    mean_return: float


@dataclass(frozen=True)
class ValueQuality:
    """Quality of a set of values, over the frames of episodes that have an outcome.

    frames, episodes: how many there are. correlation: Pearson's, of value and return, over all
    frames; ``None`` where either is constant. correlation_by_task: the same within each task.
    mean_absolute_error: |value − return|. auc_by_part: chance that a success is valued above a failure
    of the same task, at 25, 50 and 75 % of each one's own length. auc_same_age: the same comparison
    at equal frame numbers (25, 50 and 75 % of the task's median success), so that nothing can be told
    from how long an episode has lasted. ``None`` without a pair to compare. reliability: value
    against mean return. positive_share: task, then source, to the share of frames with an indicator
    that are positive; empty when no indicators were given.
    """

    frames: int
    episodes: int
    correlation: float | None
    correlation_by_task: dict[str, float | None]
    mean_absolute_error: float
    auc_by_part: dict[str, float | None]
    auc_same_age: dict[str, float | None]
    reliability: tuple[ReliabilityBin, ...]
    positive_share: dict[str, dict[str, float]]

    def to_json(self) -> str:
        """One JSON object with the fields' names."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ValueQuality:
        """The inverse of :meth:`to_json`."""
        document = json.loads(text)
        document["reliability"] = tuple(ReliabilityBin(**b) for b in document["reliability"])
        return cls(**document)


def measure_quality(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    failure_penalty: float,
    indicators: np.ndarray | None = None,
) -> ValueQuality:
    """Measures ``values`` ``(N,)`` (out of fold, or they flatter themselves) against the true returns.

    ``indicators`` is int8 ``(N,)``. Raises ``InputError`` when no episode has an outcome or a value
    is not finite.
    """
    labelled = labelled_frames(table, outcomes)
    if not labelled.any():
        raise InputError("no episode has an outcome: label some before the value model is judged")
    if np.shape(values) != labelled.shape or not np.isfinite(values).all():
        raise InputError(f"{np.shape(values)} values for {len(labelled)} frames, or some are not finite")
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, failure_penalty))
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    tasks = sorted(set(task_of_frame[labelled]))
    by_task = {t: labelled & (task_of_frame == t) for t in tasks}
    value, truth = np.asarray(values, dtype=np.float64)[labelled], returns[labelled].astype(np.float64)
    return ValueQuality(
        frames=int(labelled.sum()),
        episodes=sum(o is not None for o in episode_outcomes(table, outcomes)),
        correlation=correlation(value, truth),
        correlation_by_task={t: correlation(values[m], returns[m]) for t, m in by_task.items()},
        mean_absolute_error=float(np.abs(value - truth).mean()),
        auc_by_part={f"{p:.0%}": _auc_at(table, values, outcomes, p, same_age=False) for p in EPISODE_PARTS},
        auc_same_age={f"{p:.0%}": _auc_at(table, values, outcomes, p, same_age=True) for p in EPISODE_PARTS},
        reliability=reliability(value, truth),
        positive_share={} if indicators is None else positive_share(table, indicators),
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's correlation, or ``None`` where one of the two does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(np.asarray(a, np.float64), np.asarray(b, np.float64))[0, 1])


def reliability(values: np.ndarray, returns: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Mean value and mean return of the frames in each tenth of [−1, 0]; empty tenths are left out."""
    edges = np.linspace(-1.0, 0.0, RELIABILITY_BINS + 1)
    which = np.clip(np.digitize(values, edges) - 1, 0, RELIABILITY_BINS - 1)
    return tuple(
        ReliabilityBin(
            float(edges[b]),
            float(edges[b + 1]),
            int((which == b).sum()),
            float(values[which == b].mean()),
            float(returns[which == b].mean()),
        )
        for b in range(RELIABILITY_BINS)
        if (which == b).any()
    )


def positive_share(table: FrameTable, indicators: np.ndarray) -> dict[str, dict[str, float]]:
    """Per task and source (``teleop``, …): the positives among the frames that have an indicator."""
    task_of_frame = np.array(table.tasks, dtype=object)[table.episode_index]
    shares: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(table.tasks):
        for source in Source:
            chosen = indicators[(task_of_frame == task) & (table.source == source) & (indicators != NONE)]
            if len(chosen):
                shares.setdefault(task, {})[source.name.lower()] = float((chosen == POSITIVE).mean())
    return shares


def _auc_at(
    table: FrameTable, values: np.ndarray, outcomes: Outcomes, part: float, same_age: bool
) -> float | None:
    """Pairs of one success and one failure of the same task that are ordered rightly, over all pairs."""
    found = episode_outcomes(table, outcomes)
    lengths, starts = np.asarray(table.lengths), np.asarray(table.starts)
    right, pairs = 0.0, 0
    for task in dict.fromkeys(table.tasks):
        of_task = [i for i, t in enumerate(table.tasks) if t == task]
        won = np.array([i for i in of_task if found[i] == Outcome.SUCCESS], dtype=np.int64)
        lost = np.array([i for i in of_task if found[i] == Outcome.FAILURE], dtype=np.int64)
        if len(won) == 0 or len(lost) == 0:
            continue
        if same_age:
            age = int(part * np.median(lengths[won]))
            won, lost = won[lengths[won] > age], lost[lengths[lost] > age]
            high, low = values[starts[won] + age], values[starts[lost] + age]
        else:
            high = values[starts[won] + (part * (lengths[won] - 1)).astype(np.int64)]
            low = values[starts[lost] + (part * (lengths[lost] - 1)).astype(np.int64)]
        difference = high[:, None] - low[None, :]
        right += float((difference > 0).sum() + 0.5 * (difference == 0).sum())
        pairs += difference.size
    return right / pairs if pairs else None
