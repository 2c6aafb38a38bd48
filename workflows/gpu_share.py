"""Which GPU a step gets: Ray hands them out, one a process, and the process sees no other.

And whether there are cores or GPUs enough for the processes that train one network together.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pipeline.errors import InputError
from workflows.local_ray import available_cpus


def gpus_to_reserve(device: str, workers: int) -> float:
    """What a training step on ``device`` reserves: a GPU, so that no two models train on one at a time.

    Nothing with several ``workers``, each of which reserves its own. Raises ``InputError`` for a certain one
    of several GPUs, which nobody can ask Ray for.
    """
    if not device.startswith("cuda"):
        return 0.0
    number = device.partition(":")[2]
    if number not in ("", "0"):
        raise InputError(
            f"models are trained on the GPUs that Ray hands out, not on {device!r}: say cuda, and set "
            f"CUDA_VISIBLE_DEVICES={number} to use that one alone"
        )
    return 1.0 if workers == 1 else 0.0


def device_here(device: str) -> str:
    """What torch calls ``device`` in this process: ``cuda`` where Ray gave it a GPU, the only one it sees."""
    ray: Any = sys.modules.get("ray")
    if not device.startswith("cuda") or ray is None or not ray.is_initialized():
        return device
    in_worker = ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    return "cuda" if in_worker and ray.get_gpu_ids() else device


def gpus_of_ray() -> int:
    """How many GPUs the Ray that this process uses hands out, on all machines; 0 without Ray."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 0
    return int(ray.cluster_resources().get("GPU", 0))


def require_gpu(device: str) -> None:
    """Raises ``InputError`` where no such GPU is there: for torch in this process, or on a machine of Ray's.

    Imports torch for a GPU only.
    """
    if not device.startswith("cuda") or gpus_of_ray():
        return
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (torch.device(device).index or 0) >= there:
        raise InputError(
            f"the value models were trained on {device!r}, and {there} GPUs were found here: score where "
            "there is one, or see 'recap doctor'"
        )


def require_threads(threads: int) -> None:
    """Raises ``InputError`` for more threads than this machine has cores, which would wait for each other."""
    if threads > (found := available_cpus()):
        raise InputError(f"{threads} threads need as many cores, and there are {found}: use fewer")


def require_workers(device: str, workers: int, there: Mapping[str, float] | None = None) -> None:
    """Raises ``InputError`` where ``workers`` processes, each on a core or a GPU of its own, find no room.

    ``there``: what Ray's machines have together, ``CPU`` and ``GPU``; without it, it is this machine's.
    Imports torch for several workers on GPUs only.
    """
    if workers == 1:
        return
    on_gpu = device.startswith("cuda")
    kind, name = ("GPU", "GPUs") if on_gpu else ("CPU", "cores")
    if there is not None:
        found = int(there.get(kind, 0))
    elif on_gpu:
        import torch

        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    else:
        found = available_cpus()
    if workers > found:
        raise InputError(f"{workers} workers need as many {name}, and there are {found}: use fewer")
