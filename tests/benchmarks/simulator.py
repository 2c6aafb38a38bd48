"""How fast the simulated Gen3 runs on one core: ``python -m tests.benchmarks.simulator [--quick]``.

A skilled scripted operator picks cubes; a step is one ``get_observation`` and one ``send_action``
at 10 Hz. The last line is one JSON object; ``steps_per_s`` (two 84×84 cameras) is the median over
repeats by the wall clock. ``steps_per_cpu_s`` is the same work by this process's CPU time, which says
what the core could do where other processes compete for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import numpy as np

from collectors.operators import ScriptedOperator, SkilledSkill
from collectors.simulated_gen3 import TASKS, SimulatedGen3, SimulatedGen3Config
from pipeline.episode import CAMERAS


def use_one_core() -> None:
    """Pins this process, its software renderer included, to the first core that it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def rates(cameras: tuple[str, ...], image_size: int, steps: int) -> tuple[float, float]:
    """Control steps per wall-clock and per CPU second over ``steps`` of picking, resets not counted."""
    config = SimulatedGen3Config(cameras=cameras, image_size=image_size)
    wall = cpu = 0.0
    done = 0
    with SimulatedGen3(config) as robot:
        robot.get_observation()  # opens the renderer
        operator = ScriptedOperator(robot, SkilledSkill(), np.random.default_rng(0))
        while done < steps:
            robot.prepare(TASKS[0], done)
            operator.begin(TASKS[0])
            for _ in range(min(20, steps - done)):
                action = operator.get_action()
                wall_start, cpu_start = time.perf_counter(), time.process_time()
                robot.get_observation()
                robot.send_action(action)
                wall += time.perf_counter() - wall_start
                cpu += time.process_time() - cpu_start
                done += 1
    return steps / wall, steps / cpu


def main() -> None:
    """Prints one line per setting, then the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps and repeats")
    quick = parser.parse_args().quick
    steps, repeats = (150, 3) if quick else (400, 7)
    use_one_core()
    cases: dict[str, tuple[tuple[str, ...], int]] = {
        "steps_per_s": (CAMERAS, 84),
        "steps_per_s_without_cameras": ((), 84),
        "steps_per_s_224": (CAMERAS, 224),
    }
    results: dict[str, list[float]] = {name: [] for name in (*cases, "steps_per_cpu_s")}
    for _ in range(repeats):  # interleaved, so that a busy moment of the machine hits all alike
        for name, (cameras, size) in cases.items():
            by_wall, by_cpu = rates(cameras, size, steps)
            results[name].append(by_wall)
            if name == "steps_per_s":
                results["steps_per_cpu_s"].append(by_cpu)
    figures: dict[str, float | int] = {}
    for name, values in results.items():
        spread = f"{min(values):.0f} to {max(values):.0f} over {repeats} repeats of {steps} steps"
        print(f"{name}: median {statistics.median(values):.0f} ({spread})")
        figures[name] = round(statistics.median(values), 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
