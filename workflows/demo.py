"""``recap demo``: the whole loop in simulation, people included, on real components."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pipeline.workspace import Workspace
from workflows.demo_iterations import run_iterations
from workflows.improvement import Loop, TurnResult
from workflows.ledger import Ledger
from workflows.memory_meter import MemoryMeter
from workflows.settings import LoopSettings
from workflows.steps import StepRunner
from workflows.summary import gate_lines, turn_summary
from workflows.value_gate import GateClosed


def demo(
    root: Path,
    settings: LoopSettings,
    say: Callable[[str], None] = print,
    accept_values: bool = False,
    *,
    iterations: int = 1,
    cluster: str | None = None,
) -> TurnResult:
    """Runs the demo in the workspace ``root``, over ``iterations`` turns, and says how each went.

    What an earlier run of the same settings computed there is used again; a killed run is continued.
    ``cluster``: the address of a Ray cluster to compute on, see :mod:`workflows.cluster`. Raises
    ``InputError`` where another command works in that workspace, or where nothing can be drawn;
    ``GateClosed`` where the values do not pass the gate, unless ``accept_values``.
    """
    began = time.monotonic()
    workspace = Workspace(root).create()

    def told(result: TurnResult) -> None:
        for line in turn_summary(result, root):
            say(line)

    with MemoryMeter() as memory, StepRunner(workspace, cluster=cluster) as runner:
        try:
            result = run_iterations(
                Loop(workspace, settings, runner, Ledger(workspace), accept_values), iterations, told
            )
        except GateClosed as closed:
            for line in gate_lines(closed):
                say(line)
            raise
        computed, reused = len(runner.computed), len(runner.reused)
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    say("")
    say(
        f"{computed} steps computed, {reused} reused; {minutes} min {seconds} s; "
        f"peak memory of all processes {memory.peak_bytes / 2**30:.1f} GiB"
    )
    return result
