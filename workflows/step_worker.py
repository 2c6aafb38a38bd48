"""What a Ray worker does with a step that it is given; loads Ray only where it runs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from workflows.cluster_place import require_code, require_place
from workflows.local_ray import THREAD_SETTINGS, die_with_parent
from workflows.progress import ProgressFile
from workflows.step_faults import persistently
from workflows.step_imports import load_first
from workflows.step_store import StepCall, StepStore

if TYPE_CHECKING:  # only where a workspace has one
    from workflows.remote_steps import RemoteWorkspace


def run_step(call: StepCall, remote: RemoteWorkspace | None, *_upstream: bool) -> bool:
    """The Ray task: computes one step, in a process that does not outlive the driver; whether it did.

    ``remote``: the store that holds the workspace, on machines that have no disk in common. ``_upstream``:
    what the steps before it returned, for which Ray waits.
    """
    die_with_parent()
    require_place()
    require_code(call.code_parts)
    threads = max(1, call.num_cpus)
    for name in THREAD_SETTINGS:
        os.environ[name] = str(threads)
    if "torch" in sys.modules:
        # A reused worker has read the environment long ago.
        sys.modules["torch"].set_num_threads(threads)
    load_first(call.name)

    def attempt() -> bool:
        here = remote.bring(call) if remote is not None else call
        store = StepStore(here.steps)
        with ProgressFile(store.progress_path(here)) as progress:
            computed = store.execute(here, progress)
        if remote is not None:
            remote.send(here)
        return computed

    return persistently(attempt)
