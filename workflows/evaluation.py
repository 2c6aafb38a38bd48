"""Runs a policy on numbered starts of the simulator and says how often and how fast it succeeds.

Start ``i`` is task ``tasks[i % len(tasks)]`` with scene seed ``first_seed + i``: two evaluations with the
same numbers saw the same cubes in the same places, so that they can be compared in pairs. Each start is an
episode by itself, whose seeds follow from its number: an evaluation may be cut into rounds and parts, broken
off and continued, and every start still gives the same result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipeline.prompts import Indicator
from workflows.comparison import Attempt
from workflows.step_files import EVALUATION_FILE

if TYPE_CHECKING:  # loads MuJoCo
    from collectors.simulated_gen3 import SimulatedGen3
    from pipeline.policy.runner import PolicyRunner


@dataclass(frozen=True)
class EvaluationConfig:
    """Which starts (``first`` to before ``starts``), how long each may take, what the policy is asked for.

    ``image_size``: pixels, side of the images that the cameras take; a policy resizes them to its own.
    """

    tasks: tuple[str, ...]
    starts: int
    first: int = 0
    first_seed: int = 1_000_000
    max_steps: int = 80
    rate_hz: float = 10.0
    image_size: int = 84
    indicator: Indicator | None = "positive"
    guidance: float | None = None

    def __post_init__(self) -> None:
        """Rejects an evaluation of nothing."""
        if self.starts < 1 or not self.tasks:
            raise ValueError("an evaluation needs at least one start and one task")
        if not 0 <= self.first < self.starts:
            raise ValueError(f"there is no start from {self.first} on to before {self.starts}")
        if self.indicator not in ("positive", "negative", None):
            raise ValueError(f"indicator is {self.indicator!r}; it is 'positive', 'negative' or absent")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """From a step's parameters, in which JSON has made lists of tuples."""
        return cls(**{**parameters, "tasks": tuple(parameters["tasks"])})

    def start(self, i: int) -> tuple[str, int]:
        """The task and the scene seed of start ``i``."""
        return self.tasks[i % len(self.tasks)], self.first_seed + i

    def numbers(self, part: tuple[int, int]) -> range:
        """The numbers of the starts of part ``k`` of ``n``, ``part=(k, n)``."""
        return range(self.first + part[0], self.starts, part[1])


def evaluate(
    checkpoint: Path,
    config: EvaluationConfig,
    part: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] | None = None,
    kept: Path | None = None,
) -> list[Attempt]:
    """Evaluates ``checkpoint`` on part ``k`` of ``n`` (``part=(k, n)``) of the configured starts.

    ``kept`` is a file in which every attempt is noted as soon as it has ended: what another evaluation of the
    same checkpoint, configuration and part noted there before it was killed is not run again. It is left for
    the caller to remove. An attempt counts one intervention where a person who watched would have taken over.
    """
    from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
    from pipeline.policy.runner import PolicyRunner

    numbers = config.numbers(part)
    attempts = _resumed(kept, [config.start(i) for i in numbers]) if kept is not None else []
    missing = numbers[len(attempts) :]
    if progress is not None and attempts:
        progress(len(attempts), len(numbers))
    if not missing:
        return attempts
    policy = PolicyRunner(checkpoint, indicator=config.indicator, guidance=config.guidance)
    with SimulatedGen3(SimulatedGen3Config(rate_hz=config.rate_hz, image_size=config.image_size)) as robot:
        for i in missing:
            attempts.append(_attempt(robot, policy, config, i))
            if kept is not None:
                _note(kept, attempts[-1])
            if progress is not None:
                progress(len(attempts), len(numbers))
    return attempts


def _attempt(robot: SimulatedGen3, policy: PolicyRunner, config: EvaluationConfig, i: int) -> Attempt:
    from collectors.collection_loop import LoopConfig, run_episode
    from collectors.shadow_supervisor import ShadowSupervisor

    task, seed = config.start(i)
    robot.prepare(task, seed)
    policy.reset(task, seed=seed)
    person = ShadowSupervisor(robot)
    person.begin(task)
    summary = run_episode(
        robot, person, LoopConfig(config.rate_hz, config.max_steps, real_time=False), policy=policy
    )
    taken_over = int(person.trouble is not None)
    return Attempt(task, seed, robot.task_succeeded(), summary.steps, summary.seconds, taken_over)


def _note(path: Path, attempt: Attempt) -> None:
    """Appends one attempt in one write, so that a kill leaves whole lines but for the last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(descriptor, f"{json.dumps(asdict(attempt))}\n".encode())
    finally:
        os.close(descriptor)


def _resumed(path: Path, starts: Sequence[tuple[str, int]]) -> list[Attempt]:
    """The attempts noted in ``path``, as far as they are whole and of these starts; the rest is cut off."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    attempts: list[Attempt] = []
    whole = 0
    for line, (task, seed) in zip(text.splitlines(keepends=True), starts, strict=False):
        try:
            attempt = Attempt(**json.loads(line))
        except (ValueError, TypeError):
            break
        if not line.endswith(b"\n") or (attempt.task, attempt.start_seed) != (task, seed):
            break
        attempts.append(attempt)
        whole += len(line)
    if whole < len(text):
        os.truncate(path, whole)
    return attempts


def write_attempts(attempts: Sequence[Attempt], out: Path) -> Path:
    """Writes ``evaluation.json`` into ``out``."""
    path = out / EVALUATION_FILE
    path.write_text(json.dumps([asdict(a) for a in attempts], indent=0))
    return path


def read_attempts(*folders: Path) -> list[Attempt]:
    """The attempts of all rounds and parts of an evaluation, in the order of their starts."""
    rows: list[dict[str, Any]] = [
        row for folder in folders for row in json.loads((folder / EVALUATION_FILE).read_text())
    ]
    return sorted((Attempt(**row) for row in rows), key=lambda a: a.start_seed)
