"""Runs durable steps as Ray tasks; Ray is imported only when something must be computed.

A driver asks for steps; those published already come back at once, the others run, each as soon as its
inputs are there, as many at a time as there are cores. A few short ones alone run in the driver itself, which
takes less time than starting Ray (:mod:`workflows.step_inline`). A worker process that dies is replaced up to
twice, and an I/O error that may pass is waited out (:mod:`workflows.step_faults`); whatever else a step's
function raises is not retried, nor is a step that exceeded its time: it would again, and a night is short.
One driver at a time works in a workspace, and only the driver has side effects outside ``steps/``. When
a driver is killed, the kernel kills its workers (Linux; elsewhere Ray does, within seconds); the next
driver removes what else is left. On a cluster (:mod:`workflows.cluster`) Ray ends the workers of a driver
that is gone; one that it has not ended yet holds the lock of its step, which the next driver waits for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pipeline.errors import Failure
from pipeline.workspace import Workspace
from workflows.driver_lock import driver_lock, record_processes
from workflows.gc_removal import empty_trash
from workflows.local_ray import (
    LOST_WORKER_RETRIES,
    available_cpus,
    die_with_parent,
    local_ray,
    machines,
)
from workflows.progress import ProgressDisplay, progress_display, read_progress
from workflows.remote_config import remote_section
from workflows.step_faults import in_one_line
from workflows.step_inline import compute_here
from workflows.step_recipe import Step
from workflows.step_requirements import cores_for, require_resources
from workflows.step_store import StepResult, StepStore
from workflows.step_words import joined, lost, took_too_long
from workflows.step_worker import run_step

if TYPE_CHECKING:  # for clusters only
    from workflows.cluster import Cluster
    from workflows.remote_steps import RemoteWorkspace

__all__ = ["PendingStep", "StepRunner", "available_cpus", "die_with_parent", "local_ray"]

POLL_S = 0.2
# Seconds that Ray gets to end a worker.
_ENDING_S = 30.0


@dataclass(eq=False)
class PendingStep:
    """A step that was asked for; :meth:`result` waits for it."""

    step: Step
    runner: StepRunner
    finished: StepResult | None = None
    reference: Any = None
    began: float | None = None
    shown: bool = False

    def result(self) -> StepResult:
        """The published result; raises what the step's function raised, or ``Failure``."""
        self.runner.wait_for(self)
        assert self.finished is not None
        return self.finished


class StepRunner:
    """Runs steps in one workspace; a context manager, which holds the workspace while it is open.

    ``computed`` and ``reused`` list the steps that were and were not computed; ``address`` is the cluster's.
    Where Ray already runs in this process, it is used and left running.
    """

    def __init__(
        self,
        workspace: Workspace,
        display: ProgressDisplay | None = None,
        num_cpus: int | None = None,
        *,
        cluster: str | None = None,
        inline: bool = False,
    ) -> None:
        """``display`` shows progress (default: bars or lines on standard error).

        ``num_cpus``: the cores of a Ray of this machine's own, default all. ``cluster``: ``HOST:PORT`` of a
        Ray cluster to compute on in its place, or ``auto``; see :mod:`workflows.cluster`. ``inline``: steps
        run in this process, when they are waited for, one after the other, and no time-out applies.
        """
        if inline and cluster is not None:
            raise ValueError(f"steps run in this process or on the cluster {cluster}, not both")
        self.store = StepStore(workspace.steps)
        self.computed: list[StepResult] = []
        self.reused: list[StepResult] = []
        self._workspace = workspace
        self._display = display if display is not None else progress_display()
        self._num_cpus = num_cpus or available_cpus()
        self.address = cluster
        self._inline = inline
        self._cluster: Cluster | None = None
        self._own_ray = False
        self._remote: RemoteWorkspace | None = None
        self._driven: RemoteWorkspace | None = None
        self._pending: dict[tuple[str, str], PendingStep] = {}
        self._resources = ExitStack()
        self._watched = 0.0
        self._task: Any = None
        self._lock = -1

    def __enter__(self) -> Self:
        """Takes the workspace and tidies up after the last driver; ``InputError`` where another has it."""
        self._lock = self._resources.enter_context(driver_lock(self._workspace.root))
        self.store.sweep()
        empty_trash(self._workspace)
        if remote_section(self._workspace).url:
            from workflows.remote_steps import remote_of

            self._driven = remote_of(self._workspace)
            if self._driven is not None:
                # Of all machines that know this store, one drives.
                self._resources.enter_context(self._driven.driving())
                if self.address is not None:
                    # Only machines that have no disk in common need what lies there.
                    self._remote = self._driven
        self._resources.enter_context(self._display)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops Ray and whatever still runs on it, and lets go of the workspace."""
        # Not close(): what sends to a store, or is a cluster, has to know why it ends.
        self._resources.__exit__(kind, error, trace)
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
            pending = PendingStep(step, self, finished=self._find(step))
            if pending.finished is not None:
                self.reused.append(pending.finished)
            else:
                upstream = [self.submit(needed) for needed in step.upstream()]
                if not self._inline:
                    pending.reference = self._start(step, [p.reference for p in upstream if not p.finished])
            self._pending[address] = pending
        return self._pending[address]

    def _find(self, step: Step) -> StepResult | None:
        """What is published of ``step``, here or in the store that holds the workspace."""
        found = self.store.find(step)
        if found is None and self._remote is not None and self._remote.fetch(step):
            found = self.store.find(step)
        return found

    def wait_for(self, wanted: PendingStep) -> None:
        """Shows progress until ``wanted`` is published; raises as soon as any step fails."""
        while wanted.finished is None:
            if self._driven is not None:
                self._driven.require()
            waiting_for = [pending for pending in self._pending.values() if pending.finished is None]
            if wanted not in waiting_for:
                raise Failure(f"step {wanted.step.name} was given up after another had failed")
            if self._inline:
                # The first: what a step needs was asked for before it.
                self._compute_here(waiting_for[0])
                continue
            import ray

            running = {pending.reference: pending for pending in waiting_for}
            references = list(running)
            if self._cluster is not None:
                self._cluster.require_head()
            ray.wait(references, timeout=POLL_S)
            ready, waiting = ray.wait(references, num_returns=len(references), timeout=0)
            for reference in ready:
                self._collect(running[reference])
            if time.monotonic() - self._watched >= POLL_S:
                self._watched = time.monotonic()
                for reference in waiting:
                    self._watch(running[reference])

    def _compute_here(self, pending: PendingStep) -> None:
        try:
            computed_now = compute_here(pending.step, self.store, self._display)
        except Exception as error:
            self._pending.clear()
            raise in_one_line(pending.step.name, error) from error
        self._finish(pending, computed_now)

    def start_ray(self) -> None:
        """Starts Ray, or joins the cluster, unless this process has one; steps that must run do that, too.

        Raises ``InputError`` where the cluster cannot be joined.
        """
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            return
        if self.address is not None:
            # It imports Ray when the environment is as Ray shall find it.
            from workflows.cluster import ray_cluster

            self._cluster = self._resources.enter_context(
                ray_cluster(self.address, self._workspace, shared=self._remote is None)
            )
            self._display.say(joined(self._cluster.address, self._cluster.machines()))
            return
        self._display.say(f"starting Ray on {self._num_cpus} cores")
        self._resources.enter_context(local_ray(self._num_cpus))
        self._own_ray = True
        record_processes(self._lock)

    def _start(self, step: Step, upstream: list[Any]) -> Any:
        self.start_ray()
        import ray

        there = machines()
        require_resources(step, there)
        if self._task is None:
            # Once: Ray sends each such object to the workers anew.
            self._task = ray.remote(run_step)
        task = self._task.options(
            name=step.name,
            num_cpus=cores_for(step, there),
            num_gpus=step.num_gpus or None,
            memory=step.memory_bytes or None,
            max_retries=LOST_WORKER_RETRIES,
            retry_exceptions=False,
            # A few heavy steps: Ray would fill one machine first.
            scheduling_strategy="SPREAD",
        )
        if self._remote is not None:
            self._remote.offer(step)
        # Ray starts the task when the steps it takes as arguments have ended.
        return task.remote(self.store.call(step), self._remote, *upstream)

    def _watch(self, pending: PendingStep) -> None:
        """Shows how far a step is, once it has begun, and ends it where its time is up."""
        progress = read_progress(self.store.progress_path(pending.step))
        if progress is None:
            return
        step, now = pending.step, time.monotonic()
        if pending.began is None:
            pending.began = now
        if step.timeout_s is not None and now - pending.began > step.timeout_s:
            self._end(pending)
            raise took_too_long(step, progress)
        if not pending.shown:
            pending.shown = True
            self._display.start(step.key, step.title or step.name)
        self._display.update(step.key, *progress)

    def _end(self, pending: PendingStep) -> None:
        """Kills the worker of a step, gives up the others, and removes what the step had written."""
        import ray

        self._pending.clear()
        ray.cancel(pending.reference, force=True)
        # Ray answers when the worker is gone, and with it the lock that keeps the sweep away.
        ray.wait([pending.reference], timeout=_ENDING_S)
        self.store.sweep()

    def _collect(self, pending: PendingStep) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        name = pending.step.name
        try:
            computed_now = ray.get(pending.reference)
        except RayTaskError as error:
            self._pending.clear()
            raise in_one_line(name, getattr(error, "cause", None) or error) from error
        except RayError as error:
            self._pending.clear()
            raise lost(name, error, own_ray=self._own_ray) from error
        self._finish(pending, computed_now)
        if pending.shown:
            self._display.finish(pending.step.key)

    def _finish(self, pending: PendingStep, computed_now: bool) -> None:
        """Notes the result of a step that has ended."""
        pending.finished = self._find(pending.step)
        if pending.finished is None:
            name = pending.step.name
            raise Failure(f"step {name}: {self.store.path(pending.step)} was removed while it was in use")
        (self.computed if computed_now else self.reused).append(pending.finished)
