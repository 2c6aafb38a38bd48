"""What ``recap policy train`` says of a training before it begins, and of its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workflows.local_ray import available_cpus

if TYPE_CHECKING:
    from workflows.step_store import StepResult


def where_the_advantage_goes(policy_type: str) -> list[str]:
    from pipeline.policy.advantage_prompt import WITHOUT_LANGUAGE

    if policy_type not in WITHOUT_LANGUAGE:
        return ['advantage: in the text ("... Advantage: positive")']
    return [
        f"advantage: {policy_type} reads no text, so its state gets one more number: 1 positive, -1 negative,"
        " 0 absent. It cannot tell one task from another"
    ]


def idle_cores(training: Mapping[str, Any]) -> list[str]:
    """Says that a training on the CPU leaves cores idle, and how it takes them."""
    cores = available_cpus()
    if training.get("device", "cpu") != "cpu" or training.get("workers", 1) > 1 or cores == 1:
        return []
    if (threads := training.get("threads", 1)) >= cores:
        return []
    return [f"computes on {threads} of {cores} cores: --threads {cores} takes them all"]


def summary(result: StepResult, computed: bool, at: str) -> list[str]:
    from workflows.step_files import CHECKPOINT

    found = result.result
    how = f"{found['samples_per_s']:.0f} samples/s, {result.seconds:.0f} s" if computed else "used again"
    folder = result.path / CHECKPOINT
    return [
        f"trained on {found['frames']} frames, loss {found['final_loss']:.4f} ({how})",
        f"checkpoint: {folder}",
        f"next: recap policy evaluate --checkpoint {folder}{at}",
    ]
