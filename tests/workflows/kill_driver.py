"""A small driver for the kill test: three steps that write and sleep, and one that needs them all."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.workspace import Workspace
from tests.workflows import sample_steps
from workflows.step_recipe import Step
from workflows.steps import StepRunner


def graph(seconds: float) -> list[Step]:
    """The steps of the test, each of the sleeping ones taking ``seconds``."""
    noise = [
        Step("noise", sample_steps.write_noise, {"size": 100_000, "seconds": seconds}, seed=seed)
        for seed in range(3)
    ]
    inputs: dict[str, Step | list[Step]] = {"left": noise[0], "right": noise[1], "others": noise}
    return [*noise, Step("total", sample_steps.add_up, inputs=inputs)]


def main() -> None:
    """Arguments: the workspace and the seconds that a step takes."""
    with StepRunner(Workspace(Path(sys.argv[1])).create(), num_cpus=2) as runner:
        runner.run_all(graph(float(sys.argv[2])))
        print(f"computed {len(runner.computed)} reused {len(runner.reused)} ray {'ray' in sys.modules}")


if __name__ == "__main__":
    main()
