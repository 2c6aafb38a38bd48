"""What a step reserves, against what the machines have: Ray would wait for ever for what none has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.errors import InputError
from workflows.step_recipe import Step

Machines = Sequence[Mapping[str, float]]


def require_resources(step: Step, there: Machines) -> None:
    """``InputError`` where no machine has what ``step`` reserves; ``there``: what each has, by resource.

    A step runs on one machine, so that what several have together is of no use to it. Memory is in bytes.
    """
    if step.num_gpus > (most := _most(there, "GPU")):
        raise InputError(
            f"step {step.name} needs {step.num_gpus:g} GPU, and there is {most:g}{_on_one(there)}: "
            "run it where there is one, or set it to run on the CPU"
        )
    if step.memory_bytes > (most := _most(there, "memory")):
        raise InputError(
            f"step {step.name} needs {step.memory_bytes / 2**30:.1f} GiB of memory, and there are "
            f"{most / 2**30:.1f} GiB{_on_one(there)}: run it on a larger machine"
        )
    if not any(_fits(step, machine) for machine in there):
        raise InputError(
            f"step {step.name} needs {step.num_gpus:g} GPU, {step.memory_bytes / 2**30:.1f} GiB memory and "
            f"{min(step.num_cpus, 1)} core, and no machine of the cluster has all of it"
        )


def cores_for(step: Step, there: Machines) -> int:
    """The cores that ``step`` reserves: as many as it asks for where a machine that fits it has them."""
    return min(step.num_cpus, int(_most([m for m in there if _fits(step, m)], "CPU")))


def _fits(step: Step, machine: Mapping[str, float]) -> bool:
    """Whether it has GPUs and memory enough, and a core where one is needed."""
    return (
        step.num_gpus <= machine.get("GPU", 0.0)
        and step.memory_bytes <= machine.get("memory", 0.0)
        and (step.num_cpus == 0 or machine.get("CPU", 0.0) >= 1)
    )


def _most(there: Machines, resource: str) -> float:
    return max((machine.get(resource, 0.0) for machine in there), default=0.0)


def _on_one(there: Machines) -> str:
    return " on any machine of the cluster" if len(there) > 1 else ""
