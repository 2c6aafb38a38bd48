"""What the runner of steps tells a person: where it computes, and what became of a step that did not end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil

from pipeline.errors import Failure
from workflows.local_ray import LOST_WORKER_RETRIES
from workflows.step_recipe import Step

_NODE_PROCESS = "raylet"


def joined(address: str, there: Sequence[Mapping[str, float]]) -> str:
    """That a cluster was joined; ``there``: what each of its machines has, by resource."""
    cores = sum(machine.get("CPU", 0.0) for machine in there)
    return f"joined the Ray cluster at {address}: {_number(len(there), 'machine')}, {_number(cores, 'core')}"


def took_too_long(step: Step, progress: tuple[int, int, str]) -> Failure:
    """The failure of a step whose time was up; ``progress``: what it said last."""
    at = f" at {progress[0]} of {progress[1]}" if progress[1] else ""
    return Failure(
        f"step {step.name} took longer than the {step.timeout_s:g} s that it may: its process was ended{at}; "
        "it is not tried again"
    )


def lost(name: str, error: BaseException, *, own_ray: bool) -> Failure:
    """The failure of a step whose processes are gone: told apart from the end of Ray itself on this machine.

    ``error``: Ray's. ``own_ray``: this process started Ray, so that Ray's node is a child of it.
    """
    kind = type(error).__name__
    if kind == "LocalRayletDiedError" or (own_ray and not node_lives()):
        return Failure(
            f"step {name} was given up: Ray itself was ended on this machine ({kind}), by a person or by the "
            "kernel for want of memory (its log says so); the same command goes on with what was finished"
        )
    return Failure(
        f"step {name}: its process was lost {LOST_WORKER_RETRIES + 1} times ({kind}); is there enough memory?"
    )


def node_lives(parent: int | None = None) -> bool:
    """Whether a node of Ray's runs that the process ``parent`` (default: this one) started."""
    for child in psutil.Process(parent).children():
        try:
            if child.name() == _NODE_PROCESS and child.status() != psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def _number(number: float, word: str) -> str:
    return f"{number:g} {word}{'' if number == 1 else 's'}"
