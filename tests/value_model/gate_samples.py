"""Sound data for the gate's tests, with values that are calibrated by construction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.episode import Source
from pipeline.frame_table import FrameTable
from tests.value_model.synthetic import BLUE, RED, SIZE, SMALL, make_table
from value_model.advantages import AdvantageConfig, FrameAdvantages, label_frames
from value_model.comparators import BASELINES
from value_model.gate import EpisodeFacts, GateConfig, GateReport, judge
from value_model.returns import Outcomes, frame_returns, task_scales

PENALTY = 1.0
# Evidence of the outcome in each frame: weak enough that the first frames tell little.
_DRIFT = 0.3


@dataclass
class Case:
    """What :func:`value_model.gate.judge` is given; a test breaks one thing in it."""

    table: FrameTable
    values: np.ndarray
    outcomes: dict[str, str | None]
    facts: EpisodeFacts
    positive_fraction: float = 0.3

    @property
    def won(self) -> np.ndarray:
        """Whether each episode is a success, bool ``(E,)``."""
        return np.array([self.outcomes[i] == "success" for i in self.table.episode_ids])

    def labels(self, horizon: int | None = None) -> FrameAdvantages:
        """Advantages and indicators as the loop makes them; ``horizon`` in frames, or to the end."""
        config = AdvantageConfig(horizon, positive_fraction=self.positive_fraction)
        return label_frames(self.table, self.values, self.outcomes, PENALTY, config)

    def judge(self, labelled: FrameAdvantages | None = None, config: GateConfig | None = None) -> GateReport:
        """The gate's report."""
        return judge(
            self.table,
            self.values,
            self.outcomes,
            self.labels() if labelled is None else labelled,
            PENALTY,
            {rival.name: rival.score(self.table, self.outcomes, SMALL) for rival in BASELINES},
            self.facts,
            config or GateConfig(),
            self.positive_fraction,
        )

    def verdicts(self) -> dict[str, str]:
        """The verdict by check."""
        return {check.name: check.verdict for check in self.judge().checks}


def sound_case(episodes: int = 160, seed: int = 0) -> Case:
    """Two tasks, a skilled and a sloppy operator, two days, mixed outcomes.

    Each episode gives evidence of its outcome frame by frame, and the value is the return expected after
    it: the chance of success that Bayes' rule gives, over the mean returns of successes and of failures
    of that age. The pictures are noise of the episode's own: nothing is to be learned from the first.
    """
    rng = np.random.default_rng(seed)
    operator = np.array(["ana", "ben"])[np.arange(episodes) // 2 % 2]
    won = rng.random(episodes) < np.where(operator == "ana", 0.8, 0.45)
    lengths = np.where(won, rng.integers(30, 55, episodes), rng.integers(50, 70, episodes))
    tasks = np.array([RED, BLUE])[np.arange(episodes) % 2]
    backgrounds = rng.integers(0, 255, (episodes, 1, 1, SIZE, SIZE, 3)).astype(np.uint8)
    table = make_table(
        lengths.tolist(),
        tasks.tolist(),
        [np.full(n, Source.POLICY if i % 5 == 3 else Source.TELEOP, np.uint8) for i, n in enumerate(lengths)],
        [np.repeat(b, n, axis=0) for b, n in zip(backgrounds, lengths, strict=True)],
    )
    outcomes: dict[str, str | None] = {
        i: "success" if w else "failure" for i, w in zip(table.episode_ids, won, strict=True)
    }
    days = tuple("2026-01-01" if i % 3 else "2026-01-02" for i in range(episodes))
    return Case(
        table, expected_returns(table, outcomes, won, rng), outcomes, EpisodeFacts(tuple(operator), days)
    )


def expected_returns(
    table: FrameTable, outcomes: Outcomes, won: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The values of :func:`sound_case`, float32 ``(N,)``."""
    returns = frame_returns(table, outcomes, task_scales(table, outcomes, PENALTY))
    won_frame, age = won[table.episode_index], table.frame_index
    by_age = [
        np.array([_mean(returns[(won_frame == w) & (age == a)]) for a in range(int(age.max()) + 1)])
        for w in (False, True)
    ]
    values = np.empty(len(returns), np.float32)
    for i, success in enumerate(won):
        rows = table.frames_of(i)
        drift = _DRIFT if success else -_DRIFT
        logit = np.log(won.mean() / (1 - won.mean())) + 2 * _DRIFT * np.cumsum(
            rng.normal(drift, 1, int(table.lengths[i]))
        )
        chance = 1 / (1 + np.exp(-logit))
        a = age[rows]
        values[rows] = chance * by_age[True][a] + (1 - chance) * by_age[False][a]
    return values


def _mean(returns: np.ndarray) -> float:
    return float(returns.mean()) if len(returns) else -0.1
