"""How the value ensemble is trained: one frozen configuration that every one of its jobs shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pipeline.errors import InputError
from value_model.network import NetworkConfig, SmallNetworkConfig, network_config
from value_model.returns import Penalty


@dataclass(frozen=True)
class ValueTrainingConfig:
    """How the ensemble is trained.

    network: which network, and its shape. folds: parts that the episodes are dealt into; each model is
    blind to one. members: models a fold. steps, batch_size: optimiser steps at most, and frames in each
    (over all worker processes together). learning_rate: its peak, after ``warmup_steps``; it then falls to
    zero along a cosine. weight_decay: AdamW's. average: decay of the running mean of the weights, which is
    what is kept. target: how a return becomes a distribution over bins, and ``target_deviation`` how wide
    an HL-Gauss target is, in bins. failure_penalty: C_fail as a fraction of the task's longest episode, or
    a table of one for each task. shift: the images are moved by up to so many pixels in training.
    state_noise: standard deviation of the noise on the normalised state in training. validation_share:
    share of a model's episodes that are kept to stop it; it stops after ``patience`` evaluations,
    ``evaluate_every`` steps apart, that bring nothing. seed: of folds, weights and batches. device: torch's
    name for it. precision: "bfloat16" runs the network under torch's autocast; weights, loss and optimiser
    stay float32.
    """

    network: NetworkConfig = field(default_factory=SmallNetworkConfig)
    folds: int = 2
    members: int = 2
    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 5e-4
    warmup_steps: int = 25
    weight_decay: float = 0.3
    average: float = 0.98
    target: Literal["two_hot", "hl_gauss"] = "hl_gauss"
    target_deviation: float = 2.0
    failure_penalty: Penalty = 1.0
    shift: int = 4
    state_noise: float = 0.1
    validation_share: float = 0.15
    evaluate_every: int = 50
    patience: int = 4
    seed: int = 0
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch_size, self.evaluate_every, self.patience, self.members)
        if (
            min(counts) < 1
            or self.batch_size < 2
            or self.folds < 2
            or self.warmup_steps < 0
            or self.shift < 0
        ):
            raise InputError("value training: counts must be positive, and there must be 2 folds or more")
        if (
            min(self.learning_rate, self.target_deviation) <= 0
            or min(self.weight_decay, self.state_noise) < 0
        ):
            raise InputError(
                "value training: learning_rate and target_deviation must be positive, weight_decay and "
                "state_noise not negative"
            )
        if not (0 <= self.average < 1 and 0 <= self.validation_share <= 0.5):
            raise InputError("value training: average must be in [0, 1), validation_share in [0, 0.5]")
        if self.target not in ("two_hot", "hl_gauss"):
            raise InputError(f"value training: target {self.target!r} is neither two_hot nor hl_gauss")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"value training: precision {self.precision!r} is neither float32 nor bfloat16")

    def to_parameters(self) -> dict[str, Any]:
        """Every field as plain JSON (tuples as lists): what a step's key and a model's record hold."""
        parameters: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return parameters

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> ValueTrainingConfig:
        """The inverse of :meth:`to_parameters`; a field that is not named has its default.

        Raises ``InputError`` for a field that does not exist or a value that cannot be.
        """
        values = dict(parameters)
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise InputError(f"value training: it has no field {', '.join(map(repr, unknown))}")
        if "network" in values:
            if not isinstance(values["network"], Mapping):
                raise InputError(f"value training: network must be a table, not {values['network']!r}")
            values["network"] = network_config(values["network"])
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f"value training: a field has the wrong type ({error})") from error
