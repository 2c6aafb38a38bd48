"""``[value]`` of ``recap.toml``: which value model a site trains, and how frames become indicators.

::

    [value]
    network = "vlm"             # "small" (the default, from scratch) or "vlm" (a pretrained backbone)
    backbone = "/models/siglip" # a folder with a Hugging Face checkpoint; only with network = "vlm"
    allow_download = false      # true where backbone is an id on the Hugging Face Hub, to be fetched
    tune = "lora"               # "frozen", "lora" or "full"; only with network = "vlm"
    folds = 2                   # an episode is scored by the models of the fold that never saw it
    members = 2                 # models a fold
    steps = 400                 # gradient steps of each, at most
    n_seconds = 1.0             # look-ahead N of the advantage; or n_step = 10 frames, or n_step = "end"
    positive_fraction = 0.3     # share of a task's frames, corrections apart, that become positive
    failure_penalty = 1.0       # what a failure costs, in lengths of the task's longest episode
    device = "cuda"             # torch's name for it; "cpu" unless said
    workers = 2                 # processes that train each model together

What is not said stays as the command has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError

NETWORKS = ("small", "vlm")
TUNINGS = ("frozen", "lora", "full")
TO_THE_END = "end"
"""``n_step`` that looks to the end of the episode."""


@dataclass(frozen=True)
class ValueSection:
    """``[value]``; ``None`` where the file does not say."""

    network: str | None = None
    backbone: str | None = None  # a folder, or a hub id
    allow_download: bool | None = None  # whether a hub id may be fetched
    tune: str | None = None
    folds: int | None = None
    members: int | None = None
    steps: int | None = None
    n_step: int | str | None = None  # frames, or "end"
    n_seconds: float | None = None  # s
    positive_fraction: float | None = None
    failure_penalty: float | None = None  # lengths of the task's longest episode
    device: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Rejects values of the wrong type or out of range, and contradictions."""
        _one_of("network", self.network, NETWORKS)
        _one_of("tune", self.tune, TUNINGS)
        for name in ("backbone", "device"):
            text = getattr(self, name)
            if text is not None and (not isinstance(text, str) or not text.strip()):
                raise InputError(f"value.{name} must be a text that is not empty, not {text!r}")
        if self.allow_download not in (True, False, None):
            raise InputError(f"value.allow_download must be true or false, not {self.allow_download!r}")
        _whole("folds", self.folds, 2)
        for name in ("members", "steps", "workers"):
            _whole(name, getattr(self, name), 1)
        if self.n_step != TO_THE_END:
            _whole("n_step", self.n_step, 1, f' or "{TO_THE_END}"')
        for name in ("n_seconds", "failure_penalty"):
            number = getattr(self, name)
            if number is not None and not (_is_number(number) and 0 < number < math.inf):
                raise InputError(f"value.{name} must be a number above 0, not {number!r}")
        share = self.positive_fraction
        if share is not None and not (_is_number(share) and 0 < share < 1):
            raise InputError(f"value.positive_fraction must lie between 0 and 1, not {share!r}")
        if self.n_step is not None and self.n_seconds is not None:
            raise InputError("value.n_step and value.n_seconds are both given: look ahead by one of them")
        if self.network == "small" and (self.backbone or self.tune):
            raise InputError('value.backbone and value.tune are for value.network = "vlm"')
        if self.network == "vlm" and not self.backbone:
            raise InputError('value.network = "vlm" needs value.backbone, the folder of a checkpoint')


def check_gate(table: dict[str, Any]) -> dict[str, float]:
    """``[gate]``: names and numbers. Which names there are, the gate itself knows."""
    for name, bound in table.items():
        if not (_is_number(bound) and math.isfinite(bound)):
            raise InputError(f"gate.{name} must be a number, not {bound!r}")
    return {name: float(bound) for name, bound in table.items()}


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise InputError(f"value.{name} must be {' or '.join(map(repr, known))}, not {value!r}")


def _whole(name: str, value: Any, least: int, otherwise: str = "") -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"value.{name} must be a whole number, {least} or more{otherwise}, not {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
