"""Starts a Ray of this machine's own for the time of a ``with`` block, or uses the one that runs already."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import Failure
from workflows.ray_folder import ray_folder
from workflows.termination import Termination

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# A worker process that dies is replaced this often.
LOST_WORKER_RETRIES = 2
# What Ray says, in small letters, where one of its own processes does not answer in time.
_LATE = ("timed out", "failed to start gcs")
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Steps hand over files, not objects, so Ray's shared memory stays almost empty.
OBJECT_STORE_BYTES = 150 * 2**20
# What the worker processes get.
WORKER_ENVIRONMENT = {
    **dict.fromkeys(THREAD_SETTINGS, "1"),
    # Ray hides GPUs from tasks that did not reserve one; here each step decides for itself.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# What the driver's part of Ray goes by.
DRIVER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    # A step that runs out of memory would be repeated for ever.
    "RAY_task_oom_retries": str(LOST_WORKER_RETRIES),
}


def available_cpus() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def said_to_ray(settings: Mapping[str, str]) -> Iterator[None]:
    """Within: the environment says ``settings``, which Ray reads when it starts or is joined."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def have_ray_read_environment() -> None:
    """Has Ray's own part of this process read the environment again: it did when Ray was imported.

    Ray does the same where it turns authentication on by itself, but not where it is told to.
    """
    from ray._raylet import Config  # type: ignore[attr-defined]  # compiled, without types

    Config.initialize("")


@contextmanager
def local_ray(num_cpus: int | None = None) -> Iterator[None]:
    """Within: Ray runs. Yields at once where this process has one already, and leaves that one running.

    Otherwise starts one that takes work from this account alone and has no dashboard, with ``num_cpus`` cores
    (default: those that this process may use), and stops it, and whatever still runs on it, at the end. Its
    logs and sockets lie in a folder of their own, which is removed then. Ctrl-C and SIGTERM end the block by
    ``KeyboardInterrupt`` (:class:`workflows.termination.Terminated`), and what runs on it. Raises ``Failure``
    where Ray does not start in time.
    Inside a step there always is one: the step's own.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    with Termination() as termination, ray_folder() as folder:
        try:
            # Ray's ports are open on every interface; with a token they take nothing from strangers.
            with said_to_ray(WORKER_ENVIRONMENT | DRIVER_ENVIRONMENT | {"RAY_AUTH_MODE": "token"}):
                have_ray_read_environment()
                _start(num_cpus or available_cpus(), folder)
            termination.take()
            yield
        finally:
            termination.put_off()
            ray.shutdown()


def _start(num_cpus: int, folder: Path) -> None:
    """Starts Ray. Raises ``Failure`` where that takes longer than Ray grants itself (30 s for a node)."""
    import ray

    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="recap",
            _temp_dir=str(folder),
        )
    except Exception as error:  # Ray has several types for it, and a bare Exception is one of them
        if not any(words in str(error).lower() for words in _LATE):
            raise
        raise Failure(
            "Ray did not start in time, as happens on a busy machine: give the same command again when there "
            "is less to do; nothing is lost, and what is finished is not computed again"
        ) from error


def machines() -> list[dict[str, float]]:
    """What each machine of the Ray that this process uses has in all: ``CPU``, ``GPU``, ``memory`` (bytes).

    Machines that are gone are left out.
    """
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def resources() -> dict[str, float]:
    """What all machines of the Ray that this process uses have together."""
    import ray

    return dict(ray.cluster_resources())


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends (Linux), and ends it where that has happened."""
    if not sys.platform.startswith("linux"):
        return
    # The parent is Ray's node process. Where the driver started it, it dies with the driver in the same way,
    # so the workers go too, and at once. In a cluster it ends the workers of a driver that is gone.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)
