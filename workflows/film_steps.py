"""The durable steps that people look at: a film of two policies side by side, and the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workflows.comparison import Attempt
from workflows.evaluation import EvaluationConfig, read_attempts
from workflows.step_files import CHECKPOINT, FILM_FILE

if TYPE_CHECKING:
    from workflows.report_films import Clip

Progress = Callable[[int, int], None]
FILM_SIZE = 240


def film_side_by_side(
    out: Path,
    *,
    reference: Path,
    candidate: Path,
    reference_attempts: list[Path],
    candidate_attempts: list[Path],
    evaluations: list[dict[str, Any]],
    labels: list[str],
    starts: int,
    progress: Progress,
) -> dict[str, Any]:
    """Films both policies, each asked as when evaluated, on the starts of :func:`choose_starts`."""
    from workflows.report_films import comparison_gif

    configs = [EvaluationConfig.from_parameters(asked) for asked in evaluations]
    chosen = choose_starts(read_attempts(*reference_attempts), read_attempts(*candidate_attempts), starts)
    left: list[Clip] = []
    right: list[Clip] = []
    for done, attempt in enumerate(chosen):
        left.append(_clip(reference / CHECKPOINT, attempt, configs[0]))
        right.append(_clip(candidate / CHECKPOINT, attempt, configs[1]))
        progress(done + 1, len(chosen))
    comparison_gif(left, right, (labels[0], labels[1]), out / FILM_FILE, fps=configs[0].rate_hz)
    return {"starts": [attempt.start_seed for attempt in chosen]}


def choose_starts(reference: list[Attempt], candidate: list[Attempt], count: int) -> list[Attempt]:
    """Starts that show the difference: where only the candidate succeeded, and one where both did."""
    pairs = list(zip(reference, candidate, strict=True))
    gained = [c for b, c in pairs if c.success and not b.success]
    both = [c for b, c in pairs if c.success and b.success]
    rest = [c for b, c in pairs if not c.success]
    ordered = [*gained[: max(count - 1, 0)], *both[:1], *gained[count - 1 :], *both[1:], *rest]
    return ordered[:count]


def _clip(checkpoint: Path, attempt: Attempt, config: EvaluationConfig) -> Clip:
    from collectors.collection_loop import LoopConfig, run_episode
    from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
    from collectors.simulated_sessions import observer
    from pipeline.episode import Frame
    from pipeline.policy.runner import PolicyRunner
    from workflows.report_films import Clip

    class Camera:
        """Takes a picture at film size with every frame."""

        def __init__(self) -> None:
            self.pictures: list[np.ndarray] = []

        def append(self, frame: Frame) -> None:
            """Called by the loop once a step."""
            self.pictures.append(robot.render("overview", FILM_SIZE))

    policy = PolicyRunner(checkpoint, indicator=config.indicator, guidance=config.guidance)
    with SimulatedGen3(SimulatedGen3Config(rate_hz=config.rate_hz, image_size=config.image_size)) as robot:
        robot.prepare(attempt.task, attempt.start_seed)
        policy.reset(attempt.task, seed=attempt.start_seed)
        camera = Camera()
        loop = LoopConfig(config.rate_hz, config.max_steps, real_time=False)
        person = observer(robot)
        person.begin(attempt.task)
        run_episode(robot, person, loop, policy=policy, recorder=camera)
        return Clip(np.stack(camera.pictures), robot.task_succeeded(), attempt.task)


def report(out: Path, **gathered: Any) -> dict[str, Any]:
    """Writes the iteration's report; see :func:`workflows.report_data.write_iteration_report`."""
    from workflows.report_data import write_iteration_report

    return write_iteration_report(out, **gathered)


def values_report(out: Path, **gathered: Any) -> dict[str, Any]:
    """Writes the page about values alone; see :func:`workflows.report_data.write_values_report`."""
    from workflows.report_data import write_values_report

    return write_values_report(out, **gathered)
