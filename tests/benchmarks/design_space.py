"""``gen3_vla``'s design space side by side: ``python -m tests.benchmarks.design_space``.

Trains one policy a row (``design_space_rows``), each one change from another row, on the same demonstrations
by scripted people and with the same number of gradient steps (``--seconds``: the same training time), and
evaluates all on the same simulated starts. A row works where its success, by the lower end of its 95 %
interval, beats the upper end of a policy that does nothing, which gets 200 starts at least: they cost next to
nothing. ``--quick`` is a smoke run: three rows, 150 gradient steps and 20 starts each. There a row works with
2 successes, which shows that it learns something; it does not show which row is better.

``--data FOLDER`` keeps recordings and checkpoints; otherwise they go with the process. The last line is one
JSON object: ``rows`` (how many), ``rows_working``, and each row's numbers under ``table``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.design_space_rows import QUICK, ROWS, Row, row_named

_FIRST_SEED = 3_000_000
_STILL_STARTS = 200  # of the policy that does nothing, at least: with 20 alone the bar would be 16 %
_STILL_STEPS = 5
_MEASURED_STEPS = 40  # to find out how many steps fit into a time
_SMOKE = (
    "smoke run: {plan.steps} gradient steps and {plan.starts} starts a row. It shows whether a row trains, "
    "acts and learns something; leave --quick out to compare rows."
)


@dataclass(frozen=True)
class Plan:
    """How much of everything: demonstrations of each person, gradient steps or seconds, starts."""

    folder: Path
    demonstrations: int
    steps: int
    seconds: float | None
    starts: int
    chunks: int  # whose latency is measured


@dataclass(frozen=True)
class Result:
    """A row's numbers: success with its interval, successes/h, training, latency of a chunk in ms."""

    row: str
    success: float
    success_low: float
    success_high: float
    successes_per_hour: float
    samples_per_s: float
    training_s: float
    steps: int
    chunk_ms_median: float
    chunk_ms_p99: float
    parameters: int


def run_row(row: Row, plan: Plan) -> Result:
    """Trains, evaluates and times one row, in a process of its own with one thread."""
    import torch

    torch.set_num_threads(1)
    out = plan.folder / "checkpoints" / row.name
    began = time.perf_counter()
    steps = _steps(row, plan)
    if row.backbone_of is not None:
        source = row_named(row.backbone_of)
        first = out.with_name(f"{row.name}-backbone")
        _train(source, plan, max(1, steps // 2), first, source.options)
        options = {**row.options, "pretrained_backbone": str(first)}
        result = _train(row, plan, steps - steps // 2, out, options)
    else:
        result = _train(row, plan, steps, out, row.options)
    seconds = time.perf_counter() - began
    median, p99, parameters = _latency(out, plan)
    performance = _evaluate(out, row, plan)
    success = performance.success_rate
    return Result(
        row.name,
        success.value,
        success.low,
        success.high,
        performance.successes_per_hour.value,
        result.samples_per_s,
        seconds,
        steps,
        median,
        p99,
        parameters,
    )


def _steps(row: Row, plan: Plan) -> int:
    """The plan's steps, or as many as fit into its seconds."""
    if plan.seconds is None:
        return plan.steps
    with tempfile.TemporaryDirectory() as folder:
        measured = _train(row, plan, _MEASURED_STEPS, Path(folder) / "measured", row.options)
    return max(1, round(plan.seconds * _MEASURED_STEPS / measured.seconds))


def _train(row: Row, plan: Plan, steps: int, out: Path, options: dict[str, Any]) -> Any:
    from tests.benchmarks.design_space_data import demonstrations, with_subtasks
    from workflows.policy_training import PolicyTrainingConfig, train_policy

    table, indicators = demonstrations(plan.folder, plan.demonstrations)
    if row.subtasks:
        table = with_subtasks(table)
    config = PolicyTrainingConfig(steps=steps, policy_options=options)
    out.mkdir(parents=True, exist_ok=True)
    return train_policy(table, indicators, config, None, out)


def _evaluate(checkpoint: Path, row: Row, plan: Plan) -> Any:
    from tests.benchmarks.design_space_data import TASKS
    from workflows.comparison import performance
    from workflows.evaluation import EvaluationConfig, evaluate

    guidance = None if row.guidance == 1.0 else row.guidance
    config = EvaluationConfig(TASKS, plan.starts, first_seed=_FIRST_SEED, guidance=guidance)
    return performance(evaluate(checkpoint, config))


def _latency(checkpoint: Path, plan: Plan) -> tuple[float, float, int]:
    """Milliseconds that a chunk takes for one observation, median and 99th percentile; and the parameters."""
    import torch

    from pipeline.policy.checkpoint import load_checkpoint
    from pipeline.prompts import prompt
    from tests.benchmarks.design_space_data import TASKS, demonstrations

    loaded = load_checkpoint(checkpoint)
    table, _ = demonstrations(plan.folder, plan.demonstrations)
    milliseconds = []
    for number in range(plan.chunks + 5):
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
    counted = milliseconds[5:]
    parameters = sum(p.numel() for p in loaded.policy.parameters())
    return float(np.median(counted)), float(np.percentile(counted, 99)), parameters


def nothing(starts: int) -> Any:
    """The success of a policy that does nothing, which never moves what lies still: no picture, few steps."""
    from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
    from pipeline.episode import action_to_dict
    from tests.benchmarks.design_space_data import TASKS
    from workflows.comparison import wilson_interval
    from workflows.evaluation import EvaluationConfig

    config = EvaluationConfig(TASKS, starts, first_seed=_FIRST_SEED)
    still = action_to_dict(np.zeros(7, dtype=np.float32))
    successes = 0
    with SimulatedGen3(SimulatedGen3Config(rate_hz=config.rate_hz)) as robot:
        for i in range(starts):
            robot.prepare(*config.start(i))
            for _ in range(_STILL_STEPS):
                robot.send_action(still)
            successes += robot.task_succeeded()
    return wilson_interval(successes, starts)


def show(results: list[Result], bound: float) -> None:
    """Prints the table, a row as soon as it is there."""
    width = max(len(row.name) for row in ROWS)
    print(
        f"{'row':{width}}  {'success [95 %]':18} {'succ./h':>7} {'samples/s':>9} {'train s':>7} "
        f"{'ms median':>9} {'p99':>6}  works  change"
    )
    for result in results:
        row = row_named(result.row)
        interval = f"{result.success:4.0%} [{result.success_low:.0%}, {result.success_high:.0%}]"
        works = "yes" if result.success_low > bound else "no"
        print(
            f"{result.row:{width}}  {interval:18} {result.successes_per_hour:7.0f} "
            f"{result.samples_per_s:9.0f} {result.training_s:7.0f} {result.chunk_ms_median:9.1f} "
            f"{result.chunk_ms_p99:6.1f}  {works:5}  {row.beside}: {row.change}"
        )


def measure(rows: list[Row], plan: Plan, processes: int) -> tuple[list[Result], float]:
    """All rows' results, ``processes`` at a time, and the success that a row must beat."""
    from tests.benchmarks.design_space_data import demonstrations

    demonstrations(plan.folder, plan.demonstrations)
    starts = max(plan.starts, _STILL_STARTS)
    still = nothing(starts)
    interval = f"{still.value:.0%} [{still.low:.1%}, {still.high:.1%}]"
    print(f"doing nothing: {interval} of {starts} starts", flush=True)
    results = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        for result in pool.map(run_row, rows, [plan] * len(rows)):
            results.append(result)
            print(f"{result.row}: {result.success:.0%} in {result.training_s:.0f} s", flush=True)
    return results, still.high


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", default="", help="names, with commas between them")
    parser.add_argument("--data", type=Path, help="keeps recordings and checkpoints here")
    parser.add_argument("--demonstrations", type=int, help="episodes of each of two people")
    parser.add_argument("--steps", type=int, help="gradient steps a row")
    parser.add_argument("--seconds", type=float, help="training time a row, instead of steps")
    parser.add_argument("--starts", type=int, help="evaluated starts a row")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    default = (8, 150, 20, 40) if given.quick else (60, 1500, 200, 300)
    names = [n for n in given.rows.split(",") if n] or (QUICK if given.quick else [r.name for r in ROWS])
    with tempfile.TemporaryDirectory() as temporary:
        plan = Plan(
            folder=(given.data or Path(temporary)).resolve(),
            demonstrations=given.demonstrations or default[0],
            steps=given.steps or default[1],
            seconds=given.seconds,
            starts=given.starts or default[2],
            chunks=default[3],
        )
        if given.quick:
            print(_SMOKE.format(plan=plan), flush=True)
        results, bound = measure([row_named(name) for name in names], plan, given.processes)
    show(results, bound)
    working = sum(result.success_low > bound for result in results)
    table = {result.row: asdict(result) for result in results}
    found = {"smoke": given.quick, "rows": len(results), "rows_working": working, "bound": bound}
    print(json.dumps({**found, "table": table}))


if __name__ == "__main__":
    main()
