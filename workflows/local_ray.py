"""Starts a Ray of this machine's own for the time of a ``with`` block, or uses the one that runs already."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# A worker process that dies is replaced this often.
LOST_WORKER_RETRIES = 2
# Steps hand over files, not objects, so Ray's shared memory stays almost empty.
OBJECT_STORE_BYTES = 150 * 2**20
# What Ray and the worker processes it starts inherit.
_RAY_ENVIRONMENT = {
    **dict.fromkeys(THREAD_SETTINGS, "1"),
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


@contextmanager
def local_ray(num_cpus: int | None = None) -> Iterator[None]:
    """Within: Ray runs. Yields at once where this process has one already, and leaves that one running.

    Otherwise starts one that only this machine reaches, with ``num_cpus`` cores (default: those that this
    process may use), and stops it, and whatever still runs on it, at the end. Inside a step there always is
    one: the step's own.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    before = {name: os.environ.get(name) for name in _RAY_ENVIRONMENT}
    os.environ.update(_RAY_ENVIRONMENT)
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus or available_cpus(),
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
