"""Runs a policy on numbered starts of the simulator and says how often and how fast it succeeds.

Start ``i`` is task ``tasks[i % len(tasks)]`` with scene seed ``first_seed + i``: two evaluations with
the same numbers saw the same cubes in the same places, so that they can be compared in pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.prompts import Indicator
from workflows.comparison import Attempt
from workflows.step_files import EVALUATION_FILE


@dataclass(frozen=True)
class EvaluationConfig:
    """Which starts, how long each may take, and what the policy is asked for."""

    tasks: tuple[str, ...]
    starts: int
    first_seed: int = 1_000_000
    max_steps: int = 80
    rate_hz: float = 10.0
    indicator: Indicator | None = "positive"
    guidance: float | None = None

    def __post_init__(self) -> None:
        """Rejects an evaluation of nothing."""
        if self.starts < 1 or not self.tasks:
            raise ValueError("an evaluation needs at least one start and one task")
        if self.indicator not in ("positive", "negative", None):
            raise ValueError(f"indicator is {self.indicator!r}; it is 'positive', 'negative' or absent")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """From a step's parameters, in which JSON has made lists of tuples."""
        return cls(**{**parameters, "tasks": tuple(parameters["tasks"])})

    def start(self, i: int) -> tuple[str, int]:
        """The task and the scene seed of start ``i``."""
        return self.tasks[i % len(self.tasks)], self.first_seed + i


def evaluate(
    checkpoint: Path,
    config: EvaluationConfig,
    part: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] | None = None,
) -> list[Attempt]:
    """Evaluates ``checkpoint`` on part ``k`` of ``n`` (``part=(k, n)``) of the configured starts."""
    from collectors.collection_loop import LoopConfig, run_episode
    from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
    from collectors.simulated_sessions import observer
    from pipeline.policy.runner import PolicyRunner

    policy = PolicyRunner(checkpoint, indicator=config.indicator, guidance=config.guidance)
    loop = LoopConfig(config.rate_hz, config.max_steps, real_time=False)
    numbers = range(part[0], config.starts, part[1])
    attempts = []
    with SimulatedGen3(SimulatedGen3Config(rate_hz=config.rate_hz)) as robot:
        for done, i in enumerate(numbers):
            task, seed = config.start(i)
            robot.prepare(task, seed)
            policy.reset(task, seed=seed)
            person = observer(robot)
            person.begin(task)
            summary = run_episode(robot, person, loop, policy=policy)
            attempts.append(Attempt(task, seed, robot.task_succeeded(), summary.steps, summary.seconds))
            if progress is not None:
                progress(done + 1, len(numbers))
    return attempts


def write_attempts(attempts: Sequence[Attempt], out: Path) -> Path:
    """Writes ``evaluation.json`` into ``out``."""
    path = out / EVALUATION_FILE
    path.write_text(json.dumps([asdict(a) for a in attempts], indent=0))
    return path


def read_attempts(*folders: Path) -> list[Attempt]:
    """The attempts of all parts of an evaluation, in the order of their starts."""
    rows: list[dict[str, Any]] = [
        row for folder in folders for row in json.loads((folder / EVALUATION_FILE).read_text())
    ]
    return sorted((Attempt(**row) for row in rows), key=lambda a: a.start_seed)
