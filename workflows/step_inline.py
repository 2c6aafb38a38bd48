"""Computes a step in the driver's own process: for a few short ones, done before Ray would have started.

The same code does the work as in a worker (:meth:`StepStore.execute`), under the same locks, with as many
threads and as many tries after an I/O error, so that keys, results and what a killed driver leaves are the
same. What only another process can give is missing: steps run one after the other, nobody ends one that takes
longer than its ``timeout_s`` (Ctrl-C does), and one that is killed takes the driver along; what it leaves is
the next driver's to tidy up, as after any kill.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from pipeline.errors import Failure
from workflows.local_ray import THREAD_SETTINGS, available_cpus, said_to_ray
from workflows.progress import ProgressDisplay, ProgressFile
from workflows.step_faults import persistently
from workflows.step_recipe import Step
from workflows.step_requirements import require_resources
from workflows.step_store import StepStore


def compute_here(step: Step, store: StepStore, display: ProgressDisplay) -> bool:
    """Computes and publishes ``step``, whose inputs are published, and shows it; whether this call did it.

    Waits while another process computes the same step. What the step prints goes to standard error: the
    output is the command's. Raises what the step's function raises, ``Failure`` where it exits, and
    ``InputError`` where this machine lacks what the step reserves.
    """
    require_resources(step, [_this_machine(step)])
    call = store.call(step)

    def attempt() -> bool:
        with ProgressFile(store.progress_path(step)) as kept:

            def progress(done: int, total: int, message: str = "") -> None:
                kept(done, total, message)
                display.update(step.key, done, total, message)

            return store.execute(call, progress)

    display.start(step.key, step.title or step.name)
    try:
        with limited_threads(max(1, step.num_cpus)), redirect_stdout(sys.stderr):
            computed = persistently(attempt)
    except SystemExit as error:
        # A worker's end is the step's failure; the driver has to let go of what it holds.
        raise Failure(f"it ended its process, with status {error.code}") from error
    display.finish(step.key)
    return computed


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Within: BLAS, OpenMP and torch compute with ``threads`` threads, as in a worker process.

    Libraries that are loaded within read it from the environment.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    with said_to_ray(dict.fromkeys(THREAD_SETTINGS, str(threads))), threadpool_limits(threads):
        if torch is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)


def _this_machine(step: Step) -> dict[str, float]:
    """What this machine has in all, as Ray counts it; GPUs only for a step that asks: torch loads slowly."""
    there: dict[str, float] = {"CPU": available_cpus()}
    if step.memory_bytes:
        there["memory"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if step.num_gpus:
        import torch

        there["GPU"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return there
