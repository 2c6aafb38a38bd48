"""How a policy is trained: one frozen configuration, checked when it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pipeline.errors import InputError

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class PolicyTrainingConfig:
    """How a policy is trained; contradictions raise ``InputError`` when it is built."""

    steps: int = 2000
    """Gradient steps."""
    batch_size: int = 64
    """Observations a batch; gen3_vla trains each at several noise levels (its ``noise_samples``)."""
    learning_rate: float = 1e-3
    """Peak, after the warm-up; a cosine takes it to zero."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    gradient_clip: float = 1.0
    """Largest gradient norm."""
    ema_decay: float = 0.995
    """Of the running mean of the weights, which is what gets saved; 0 saves the last weights."""
    indicator_dropout: float = 0.3
    """Chance that a sample's indicator is left out of its prompt."""
    positive_share: float | None = None
    """Share of each batch drawn from positive frames; ``None`` draws uniformly."""
    seed: int = 0
    """Of weights, batches, noise and augmentation."""
    threads: int = 1
    """CPU threads of the one process; the same number gives the same weights again."""
    policy_options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the policy's configuration to set, only for training from scratch."""
    policy_type: str = "gen3_vla"
    """Which LeRobot policy is trained from scratch; a checkpoint to start from says its own."""
    lora_rank: int = 0
    """Rank of the low-rank updates that are trained instead of the weights; 0 trains the weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16`` runs the forward pass under torch's autocast; optimiser and mean stay as they are."""
    accumulate: int = 1
    """Batches whose mean gradient makes one step: it sees ``accumulate × batch_size`` observations."""
    device: str = "cpu"
    """Torch's name for where the policy is trained."""
    workers: int = 1
    """Processes that share each batch (:mod:`workflows.policy_training_group`); their draws are their own."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for one in fields(self):
            number = getattr(self, one.name)
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"policy training: {one.name} is {number}, must be a finite number")
        for name in ("steps", "batch_size", "threads", "accumulate", "workers"):
            if getattr(self, name) < 1:
                raise InputError(f"policy training: {name} is {getattr(self, name)}, must be at least 1")
        for name in ("warmup_steps", "lora_rank"):
            if getattr(self, name) < 0:
                raise InputError(f"policy training: {name} is {getattr(self, name)}, must be at least 0")
        if self.learning_rate <= 0 or self.gradient_clip <= 0 or self.weight_decay < 0:
            raise InputError(
                "policy training: learning_rate and gradient_clip must be above 0, weight_decay not below it"
            )
        if not 0 <= self.ema_decay < 1 or not 0 <= self.indicator_dropout <= 1:
            raise InputError("policy training: ema_decay must lie in [0, 1), indicator_dropout in [0, 1]")
        if self.positive_share is not None and not 0 <= self.positive_share <= 1:
            raise InputError(f"policy training: positive_share is {self.positive_share}, must lie in [0, 1]")
        if self.precision not in PRECISIONS:
            raise InputError(f"policy training: precision {self.precision!r} is neither float32 nor bfloat16")
        if self.workers > self.batch_size:
            raise InputError(
                f"policy training: batches of {self.batch_size} observations are too small for "
                f"{self.workers} workers"
            )
        require_threads_alone(self.threads, self.workers, self.device)
        if not self.policy_type or not self.device:
            raise InputError("policy training: policy_type and device must not be empty")

    def as_json(self) -> dict[str, Any]:
        """Every field as plain JSON: what a training is told apart and recorded by.

        One process alone is not mentioned: it is what every training was before there were several. Of
        several, each has another device, which makes no difference.
        """
        said = {**asdict(self), "policy_options": dict(self.policy_options)}
        if self.workers == 1:
            del said["workers"]
        else:
            said["device"] = self.device.partition(":")[0]
        return said


def require_threads_alone(threads: int, workers: int, device: str) -> None:
    """Raises ``InputError`` for threads of several processes, each of which has a core, or beside a GPU."""
    if threads > 1 and workers > 1:
        raise InputError(
            f"policy: {workers} workers compute on a core or a GPU each: leave the {threads} threads out"
        )
    if threads > 1 and device != "cpu":
        raise InputError(f"policy: {device!r} computes, not the CPU: leave the {threads} threads out")


def learning_rate_factor(step: int, config: PolicyTrainingConfig) -> float:
    """The learning rate at a step (from 0) over its peak: linear warm-up, then a cosine to zero."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    return warmup * 0.5 * (1 + math.cos(math.pi * step / config.steps))
