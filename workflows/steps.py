"""Runs durable steps as Ray tasks. The only file that imports Ray, and only when something must be computed.

A driver asks for steps; those published already come back at once, the others run, each as soon as its
inputs are there, as many at a time as there are cores. What a step's function raises is not retried; a
worker process that dies is replaced up to twice. One driver at a time works in a workspace, and only
the driver has side effects outside ``steps/``. When a driver is killed, the kernel kills its workers
(Linux; elsewhere Ray does, within seconds); the next driver removes what else is left.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pipeline.errors import Failure, InputError
from pipeline.workspace import Workspace
from workflows.driver_lock import driver_lock, record_processes
from workflows.progress import ProgressDisplay, ProgressFile, progress_display, read_progress
from workflows.step_recipe import Step
from workflows.step_store import StepCall, StepResult, StepStore

LOST_WORKER_RETRIES = 2
POLL_S = 0.2
# Steps hand over files, not objects, so Ray's shared memory stays almost empty.
OBJECT_STORE_BYTES = 150 * 2**20
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# What Ray and the worker processes it starts inherit.
_RAY_ENVIRONMENT = {
    **dict.fromkeys(_THREADS, "1"),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # A step that runs out of memory would be repeated for ever.
    "RAY_task_oom_retries": str(LOST_WORKER_RETRIES),
    # Ray hides GPUs from tasks that did not reserve one; here each step decides for itself.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def available_cpus() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(eq=False)
class PendingStep:
    """A step that was asked for; :meth:`result` waits for it."""

    step: Step
    runner: StepRunner
    finished: StepResult | None = None
    reference: Any = None
    shown: bool = False

    def result(self) -> StepResult:
        """The published result; raises what the step's function raised, or ``Failure``."""
        self.runner.wait_for(self)
        assert self.finished is not None
        return self.finished


class StepRunner:
    """Runs steps in one workspace; a context manager, which holds the workspace while it is open.

    ``computed`` and ``reused`` list the results of steps that were and were not computed in this run.
    Where Ray already runs in this process, it is used and left running.
    """

    def __init__(
        self, workspace: Workspace, display: ProgressDisplay | None = None, num_cpus: int | None = None
    ) -> None:
        """``display`` shows progress (default: bars or lines on standard error); ``num_cpus``: all."""
        self.store = StepStore(workspace.steps)
        self.computed: list[StepResult] = []
        self.reused: list[StepResult] = []
        self._workspace = workspace
        self._display = display if display is not None else progress_display()
        self._num_cpus = num_cpus or available_cpus()
        self._pending: dict[tuple[str, str], PendingStep] = {}
        self._resources = ExitStack()
        self._lock = -1

    def __enter__(self) -> Self:
        """Takes the workspace and tidies up after the last driver; ``InputError`` where another has it."""
        self._lock = self._resources.enter_context(driver_lock(self._workspace.root))
        self.store.sweep()
        self._resources.enter_context(self._display)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops Ray and whatever still runs on it, and lets go of the workspace."""
        self._resources.close()
        self._pending.clear()

    def run(self, step: Step) -> StepResult:
        """The result of ``step``; computes it and the steps it needs where they are not published."""
        return self.submit(step).result()

    def run_all(self, steps: Sequence[Step]) -> list[StepResult]:
        """The results of ``steps`` in their order; independent ones are computed at the same time."""
        return [pending.result() for pending in [self.submit(step) for step in steps]]

    def submit(self, step: Step) -> PendingStep:
        """Asks for ``step`` and, before it, for every unpublished step among its inputs; does not wait."""
        address = (step.name, step.key)
        if address not in self._pending:
            pending = PendingStep(step, self, finished=self.store.find(step))
            if pending.finished is not None:
                self.reused.append(pending.finished)
            else:
                upstream = [self.submit(needed) for needed in step.upstream()]
                pending.reference = self._start(step, [p.reference for p in upstream if not p.finished])
            self._pending[address] = pending
        return self._pending[address]

    def wait_for(self, wanted: PendingStep) -> None:
        """Shows progress until ``wanted`` is published; raises as soon as any step fails."""
        while wanted.finished is None:
            import ray

            running = [p for p in self._pending.values() if p.finished is None]
            if wanted not in running:
                raise Failure(f"step {wanted.step.name} was given up after another had failed")
            ready, _ = ray.wait([p.reference for p in running], timeout=POLL_S)
            for pending in running:
                if pending.reference in ready:
                    self._collect(pending)
                else:
                    self._show(pending)

    def _start(self, step: Step, upstream: list[Any]) -> Any:
        import ray

        if not ray.is_initialized():
            self._display.say(f"starting Ray on {self._num_cpus} cores")
            self._resources.enter_context(_local_ray(self._num_cpus))
            record_processes(self._lock)
        task = ray.remote(_run_in_worker).options(
            name=step.name,
            num_cpus=min(step.num_cpus, self._num_cpus),
            max_retries=LOST_WORKER_RETRIES,
            retry_exceptions=False,
        )
        # Ray starts the task when the steps it takes as arguments have ended.
        return task.remote(self.store.call(step), *upstream)

    def _show(self, pending: PendingStep) -> None:
        progress = read_progress(self.store.progress_path(pending.step))
        if progress is None:
            return
        if not pending.shown:
            pending.shown = True
            self._display.start(pending.step.key, pending.step.title or pending.step.name)
        self._display.update(pending.step.key, *progress)

    def _collect(self, pending: PendingStep) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        name = pending.step.name
        try:
            computed_now = ray.get(pending.reference)
        except RayTaskError as error:
            self._pending.clear()
            raise _as_own_error(name, error) from error
        except RayError as error:
            self._pending.clear()
            raise Failure(
                f"step {name}: its process was lost {LOST_WORKER_RETRIES + 1} times "
                f"({type(error).__name__}); is there enough memory?"
            ) from error
        pending.finished = self.store.find(pending.step)
        if pending.finished is None:
            raise Failure(f"step {name}: {self.store.path(pending.step)} was removed while it was in use")
        (self.computed if computed_now else self.reused).append(pending.finished)
        if pending.shown:
            self._display.finish(pending.step.key)


def _run_in_worker(call: StepCall, *_upstream: bool) -> bool:
    """The Ray task: computes one step, in a process that does not outlive the driver."""
    _die_with_parent()
    for name in _THREADS:
        os.environ[name] = str(call.num_cpus)
    if "torch" in sys.modules:
        # A reused worker has read the environment long ago.
        sys.modules["torch"].set_num_threads(call.num_cpus)
    store = StepStore(call.steps)
    with ProgressFile(store.progress_path(call)) as progress:
        return store.execute(call, progress)


def _die_with_parent() -> None:
    if not sys.platform.startswith("linux"):
        return
    # Ray's node process dies with the driver in the same way, so the workers go too, and at once.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)


def _as_own_error(name: str, error: Any) -> Exception:
    """The exception that a step's function raised, told in one line."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, InputError | Failure):
        kind = InputError if isinstance(cause, InputError) else Failure
        return kind(f"step {name}: {cause}")
    first_line = (str(cause).strip().splitlines() or [""])[0]
    return Failure(f"step {name} failed: {type(cause).__name__}: {first_line}")


@contextmanager
def _local_ray(num_cpus: int) -> Iterator[None]:
    import ray

    before = {name: os.environ.get(name) for name in _RAY_ENVIRONMENT}
    os.environ.update(_RAY_ENVIRONMENT)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="recap",
        )
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    try:
        yield
    finally:
        ray.shutdown()
