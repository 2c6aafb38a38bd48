"""One row of the design-space benchmark: trained and evaluated, then timed with nothing beside it."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.design_space_rows import Row, row_named

FIRST_SEED = 3_000_000
_MEASURED_STEPS = 40  # to find out how many steps fit into a time, and how many samples a second
_WARM_CHUNKS = 5


@dataclass(frozen=True)
class Plan:
    """How much of everything: demonstrations of each person, gradient steps or seconds, starts."""

    folder: Path
    demonstrations: int
    steps: int
    seconds: float | None
    starts: int
    chunks: int  # whose latency is measured
    seed: int = 0  # of weights, batches and noise in training


@dataclass(frozen=True)
class Learned:
    """What a row learned: success with its 95 % interval, successes/h; and what its training took."""

    row: str
    success: float
    success_low: float
    success_high: float
    successes_per_hour: float
    training_s: float
    steps: int


@dataclass(frozen=True)
class Timed:
    """A row alone on the machine: training throughput, and milliseconds that an action chunk takes."""

    samples_per_s: float
    chunk_ms_median: float
    chunk_ms_p99: float
    parameters: int


def learn(row: Row, plan: Plan) -> Learned:
    """Trains and evaluates one row with one thread, unless the plan's folder has its result already."""
    import torch

    torch.set_num_threads(1)
    kept = plan.folder / "learned" / f"{_name(row, plan)}.json"
    made_by = _made_by(row, plan)
    if kept.is_file():
        found = json.loads(kept.read_text())
        if found.pop("made_by") == made_by:
            return Learned(**found)
    began = time.perf_counter()
    steps = _steps(row, plan)
    options = row.options
    if row.backbone_of is not None:
        source = row_named(row.backbone_of)
        first = _checkpoint(row, plan).with_name(f"{_name(row, plan)}-backbone")
        _train(source, plan, max(1, steps // 2), first, source.options)
        options = {**row.options, "pretrained_backbone": str(first)}
    own = steps if row.backbone_of is None else steps - steps // 2
    _train(row, plan, own, _checkpoint(row, plan), options)
    seconds = time.perf_counter() - began
    performance = _evaluate(row, plan)
    success = performance.success_rate
    result = Learned(
        row.name,
        success.value,
        success.low,
        success.high,
        performance.successes_per_hour.value,
        seconds,
        steps,
    )
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({**asdict(result), "made_by": made_by}, indent=1) + "\n")
    return result


def timed(row: Row, plan: Plan) -> Timed:
    """Times some gradient steps of a new policy, and chunks of the trained one for one observation each."""
    import torch

    from pipeline.policy.checkpoint import load_checkpoint
    from pipeline.prompts import prompt
    from tests.benchmarks.design_space_data import TASKS, demonstrations

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        # A frozen backbone comes from elsewhere: its own weights do not matter for the time.
        training = _train(row, plan, _MEASURED_STEPS, Path(folder) / "measured", row.options)
    loaded = load_checkpoint(_checkpoint(row, plan))
    table, _ = demonstrations(plan.folder, plan.demonstrations)
    milliseconds = []
    for number in range(plan.chunks + _WARM_CHUNKS):
        frame = np.array([number % len(table)])
        images = torch.from_numpy(table.images(frame)[0]).permute(0, 3, 1, 2).float() / 255
        observation: dict[str, Any] = {
            f"observation.images.{camera}": image for camera, image in zip(table.cameras, images, strict=True)
        }
        observation["observation.state"] = torch.from_numpy(table.state[frame][0])
        observation["task"] = prompt(TASKS[0], "positive")
        began = time.perf_counter()
        with torch.inference_mode():
            loaded.policy.predict_action_chunk(loaded.preprocessor(observation))
        milliseconds.append(1e3 * (time.perf_counter() - began))
    counted = milliseconds[_WARM_CHUNKS:]
    return Timed(
        training.samples_per_s,
        float(np.median(counted)),
        float(np.percentile(counted, 99)),
        sum(p.numel() for p in loaded.policy.parameters()),
    )


def _made_by(row: Row, plan: Plan) -> dict[str, Any]:
    """What a kept result must have been made by to count: the row and the plan, not the code."""
    wanted = {name: value for name, value in asdict(plan).items() if name not in ("folder", "chunks")}
    if not plan.seed:
        del wanted["seed"]  # as results of one seed were kept
    return {"row": asdict(row), "plan": wanted}


def _name(row: Row, plan: Plan) -> str:
    return f"{row.name}-seed{plan.seed}" if plan.seed else row.name


def _checkpoint(row: Row, plan: Plan) -> Path:
    return plan.folder / "checkpoints" / _name(row, plan)


def _steps(row: Row, plan: Plan) -> int:
    """The plan's steps, or as many as fit into its seconds."""
    if plan.seconds is None:
        return plan.steps
    with tempfile.TemporaryDirectory() as folder:
        measured = _train(row, plan, _MEASURED_STEPS, Path(folder) / "measured", row.options)
    return max(1, round(plan.seconds * _MEASURED_STEPS / measured.seconds))


def _train(row: Row, plan: Plan, steps: int, out: Path, options: dict[str, Any]) -> Any:
    from tests.benchmarks.design_space_data import demonstrations, subtasks_of
    from workflows.policy_training import PolicyTrainingConfig, train_policy

    table, indicators = demonstrations(plan.folder, plan.demonstrations)
    subtasks = subtasks_of(table) if row.subtasks else None
    config = PolicyTrainingConfig(steps=steps, policy_options=options, seed=plan.seed)
    out.mkdir(parents=True, exist_ok=True)
    return train_policy(table, indicators, config, None, out, subtasks=subtasks)


def _evaluate(row: Row, plan: Plan) -> Any:
    from tests.benchmarks.design_space_data import TASKS
    from workflows.comparison import performance
    from workflows.evaluation import EvaluationConfig, evaluate

    guidance = None if row.guidance == 1.0 else row.guidance
    config = EvaluationConfig(TASKS, plan.starts, first_seed=FIRST_SEED, guidance=guidance)
    return performance(evaluate(_checkpoint(row, plan), config))
