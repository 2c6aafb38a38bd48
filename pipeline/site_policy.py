"""``[policy]`` of ``recap.toml``: which policy the loop fine-tunes, and how.

::

    [policy]
    type = "smolvla"            # a LeRobot policy, such as act, smolvla, pi05; default gen3_vla
    path = "/models/smolvla"    # a folder with weights that the base policy begins with
    base_steps = 5000           # gradient steps of the base policy, on the demonstrations
    base_learning_rate = 1e-4
    fine_tune_steps = 5000      # gradient steps of each fine-tune
    fine_tune_learning_rate = 1e-4
    positive_share = 0.85       # of each batch of a fine-tune, drawn from positive frames
    indicator_dropout = 0.3     # share of samples whose prompt is the bare task
    batch_size = 16
    accumulate = 4              # batches a gradient step
    lora_rank = 16              # of the fine-tunes; 0 trains all weights
    precision = "bfloat16"      # or float32
    device = "cuda"
    workers = 2                 # processes that train each policy together, each on its own GPU (or core)
    threads = 4                 # or the cores that each policy is trained on, in one process
    [policy.options]            # fields of that policy's own configuration; "none" where one is null
    chunk_size = 16
    subtasks = "from labels"    # of gen3_vla: a list of names, or those that people marked as segments

What is not said stays as the command has it; learning rates follow the type. See docs/policies.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipeline.errors import InputError

_TEXTS = ("type", "path", "device")
# The least that each may be.
_WHOLE = {
    "base_steps": 1,
    "fine_tune_steps": 1,
    "batch_size": 1,
    "accumulate": 1,
    "lora_rank": 0,
    "workers": 1,
    "threads": 1,
}
_RATES = ("base_learning_rate", "fine_tune_learning_rate")
_SHARES = ("positive_share", "indicator_dropout")
_PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class PolicySection:
    """``[policy]``; ``None`` where the file does not say. The policy's own class checks ``options``."""

    type: str | None = None
    path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    base_steps: int | None = None
    base_learning_rate: float | None = None
    fine_tune_steps: int | None = None
    fine_tune_learning_rate: float | None = None
    positive_share: float | None = None
    indicator_dropout: float | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    lora_rank: int | None = None
    precision: str | None = None
    device: str | None = None
    workers: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        """Rejects values of the wrong type or out of range."""
        for name in _TEXTS:
            text = getattr(self, name)
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise InputError(f"policy.{name} must be a text that is not empty, not {text!r}")
        if not isinstance(self.options, Mapping):
            raise InputError(f"policy.options must be a table, not {self.options!r}")
        for name, least in _WHOLE.items():
            number = getattr(self, name)
            if number is not None and (type(number) is not int or number < least):
                raise InputError(f"policy.{name} must be a whole number, {least} or more, not {number!r}")
        for name in (*_RATES, *_SHARES):
            number = getattr(self, name)
            if number is None:
                continue
            most, words = (1.0, "from 0 to 1") if name in _SHARES else (float("inf"), "above 0")
            fits = type(number) in (int, float) and math.isfinite(number) and 0 <= number <= most
            if not fits or (name in _RATES and number == 0):
                raise InputError(f"policy.{name} must be a number {words}, not {number!r}")
        if self.precision is not None and self.precision not in _PRECISIONS:
            raise InputError(f"policy.precision must be float32 or bfloat16, not {self.precision!r}")

    def said(self) -> dict[str, Any]:
        """What the file says, by name."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in found.items() if value is not None and value != {}}
