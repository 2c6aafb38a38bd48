"""``gen3_vla``'s design space side by side: ``python -m tests.benchmarks.design_space``.

Trains one policy a row (``design_space_rows``), each one change from another row, on the same demonstrations
by scripted people and with the same number of gradient steps (``--seconds``: the same training time), and
evaluates all on the same simulated starts. A row works where its success, by the lower end of its 95 %
interval, beats the upper end of a policy that does nothing, which gets 200 starts at least: they cost next to
nothing. Then each row is timed, one after the other: samples a second in training, milliseconds a chunk.
``--quick`` is a smoke run: three rows, 150 gradient steps and 20 starts each. There a row works with
2 successes, which shows that it learns something; it does not show which row is better.

``--seeds N`` trains each row with N seeds: their successes stand beside the first one's interval, which says
how far the starts are chance, not how far the training is.

``--data FOLDER`` keeps recordings, checkpoints and what each row learned: the same command goes on with the
rows that are missing (of the same code: delete the folder when that changed). Without it everything goes
with the process. ``--markdown FILE`` writes the table as docs/gen3_vla.md has it. The last line is one JSON
object: ``rows`` (how many), ``rows_working``, and each row's numbers under ``table``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.design_space_rows import QUICK, ROWS, Row, row_named
from tests.benchmarks.design_space_run import FIRST_SEED, Learned, Plan, Timed, learn, timed

_STILL_STARTS = 200  # of the policy that does nothing, at least: with 20 alone the bar would be 16 %
_STILL_STEPS = 5
_SMOKE = (
    "smoke run: {plan.steps} gradient steps and {plan.starts} starts a row. It shows whether a row trains, "
    "acts and learns something; leave --quick out to compare rows."
)

Result = tuple[list[Learned], Timed]  # by seed


def nothing(starts: int) -> Any:
    """The success of a policy that does nothing, which never moves what lies still: no picture, few steps."""
    from collectors.simulated_gen3 import SimulatedGen3, SimulatedGen3Config
    from pipeline.episode import action_to_dict
    from tests.benchmarks.design_space_data import TASKS
    from workflows.comparison import wilson_interval
    from workflows.evaluation import EvaluationConfig

    config = EvaluationConfig(TASKS, starts, first_seed=FIRST_SEED)
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
    """Prints the table."""
    width = max(len(row.name) for row in ROWS)
    print(
        f"{'row':{width}}  {'success [95 %]':18} {'succ./h':>7} {'samples/s':>9} {'train s':>7} "
        f"{'ms median':>9} {'p99':>6}  works  change"
    )
    for seeds, times in results:
        learned = seeds[0]
        row = row_named(learned.row)
        print(
            f"{row.name:{width}}  {_interval(learned):18} {learned.successes_per_hour:7.0f} "
            f"{times.samples_per_s:9.0f} {learned.training_s:7.0f} {times.chunk_ms_median:9.1f} "
            f"{times.chunk_ms_p99:6.1f}  {'yes' if learned.success_low > bound else 'no':5}  "
            f"{row.beside}: {row.change}{_others(seeds, '; other seeds ')}"
        )


def markdown(results: list[Result]) -> str:
    """The table for the documentation."""
    lines = [
        "| row | beside | what is changed | success [95 %] | successes/h | samples/s | ms a chunk (p99) | "
        "weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for seeds, times in results:
        learned = seeds[0]
        row = row_named(learned.row)
        success = f"{_interval(learned).strip()}{_others(seeds, ', ')}"
        lines.append(
            f"| {row.name} | {row.beside} | {row.change} | {success} | "
            f"{learned.successes_per_hour:.0f} | {times.samples_per_s:.0f} | {times.chunk_ms_median:.1f} "
            f"({times.chunk_ms_p99:.1f}) | {times.parameters / 1e6:.2f} M |"
        )
    return "\n".join(lines) + "\n"


def _interval(learned: Learned) -> str:
    return f"{learned.success:4.0%} [{learned.success_low:.0%}, {learned.success_high:.0%}]"


def _others(seeds: list[Learned], before: str) -> str:
    """The successes of all seeds but the first."""
    return before + ", ".join(f"{one.success:.0%}" for one in seeds[1:]) if seeds[1:] else ""


def measure(rows: list[Row], plan: Plan, processes: int, seeds: int = 1) -> tuple[list[Result], float]:
    """All rows' results, learned ``processes`` at a time, and the success that a row must beat."""
    from tests.benchmarks.design_space_data import demonstrations

    demonstrations(plan.folder, plan.demonstrations)
    starts = max(plan.starts, _STILL_STARTS)
    still = nothing(starts)
    interval = f"{still.value:.0%} [{still.low:.1%}, {still.high:.1%}]"
    print(f"doing nothing: {interval} of {starts} starts", flush=True)
    learned: dict[str, list[Learned]] = {}
    plans = [replace(plan, seed=seed) for seed in range(seeds)]
    jobs = [(row, one) for one in plans for row in rows]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        for result in pool.map(learn, *zip(*jobs, strict=True)):
            learned.setdefault(result.row, []).append(result)
            print(f"{result.row}: {result.success:.0%} in {result.training_s:.0f} s", flush=True)
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        times = list(pool.map(timed, rows, [plan] * len(rows)))
    return list(zip(learned.values(), times, strict=True)), still.high


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", default="", help="names, with commas between them")
    parser.add_argument("--data", type=Path, help="keeps recordings, checkpoints and results here")
    parser.add_argument("--markdown", type=Path, help="writes the table here")
    parser.add_argument("--demonstrations", type=int, help="episodes of each of two people")
    parser.add_argument("--steps", type=int, help="gradient steps a row")
    parser.add_argument("--seconds", type=float, help="training time a row, instead of steps")
    parser.add_argument("--starts", type=int, help="evaluated starts a row")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each row")
    parser.add_argument("--processes", type=int, default=1, help="rows that are trained at the same time")
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
        results, bound = measure([row_named(name) for name in names], plan, given.processes, given.seeds)
    show(results, bound)
    if given.markdown:
        given.markdown.write_text(markdown(results))
    working = sum(seeds[0].success_low > bound for seeds, _ in results)
    table = {
        seeds[0].row: {**asdict(seeds[0]), **asdict(times), "successes": [one.success for one in seeds]}
        for seeds, times in results
    }
    found = {"smoke": given.quick, "rows": len(results), "rows_working": working, "bound": bound}
    print(json.dumps({**found, "table": table}))


if __name__ == "__main__":
    main()
