"""Which of a policy's weights are trained: all that its configuration leaves open, or low-rank adapters.

LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, eq. 3): a layer's weight W
stays, and W + (alpha / r) B A is what acts, of which only B and A, of rank r, are trained. The adapters
are put into the policy's own layers (peft), so that training code sees the same policy; what is saved is
the sum, an ordinary LeRobot checkpoint, which needs neither peft nor the weights that it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from pipeline.errors import InputError

if TYPE_CHECKING:
    from lerobot.policies.pretrained import PreTrainedPolicy

# alpha / r, so that another rank needs no other learning rate.
_LORA_SCALE = 2
_ADAPTER = "default"


class TuningConfig(Protocol):
    """What is read of a training's configuration."""

    @property
    def lora_rank(self) -> int:
        """0 trains the weights themselves."""

    @property
    def precision(self) -> str:
        """ "float32" or "bfloat16"."""


def prepare(policy: PreTrainedPolicy, config: TuningConfig) -> list[nn.Parameter] | list[dict[str, Any]]:
    """Makes ``policy`` ready for its gradient steps, in place; returns what an optimiser takes.

    Without LoRA these are the policy's own parameters or groups of them (``get_optim_params``), with it
    the adapters' alone. The adapters' first values are drawn with torch's generator; B is 0, so that the
    policy still acts as before. Raises ``InputError`` where there is no layer to adapt, nothing to train,
    or a GPU that has no bfloat16.
    """
    if (
        config.precision == "bfloat16"
        and _device(policy).type == "cuda"
        and not torch.cuda.is_bf16_supported()
    ):
        raise InputError("this GPU has no bfloat16: train with precision float32")
    if config.lora_rank:
        _add_adapters(policy, config.lora_rank)
        return [p for p in policy.parameters() if p.requires_grad]
    wanted = policy.get_optim_params()
    if not any(p.requires_grad for p in policy.parameters()):
        raise InputError("none of the policy's weights is trained: check what its options freeze")
    if isinstance(wanted, dict):
        wanted = list(wanted.values())
    wanted = list(wanted)
    if wanted and isinstance(wanted[0], dict):
        return wanted
    return [p for p in wanted if p.requires_grad]


def autocast(policy: PreTrainedPolicy, config: TuningConfig) -> AbstractContextManager[Any]:
    """Where the forward pass runs: in bfloat16 with ``precision`` "bfloat16", on any device.

    Weights, gradients and the optimiser's state stay float32 where the policy holds them so.
    """
    if config.precision != "bfloat16":
        return nullcontext()
    return torch.autocast(_device(policy).type, dtype=torch.bfloat16)


def has_adapters(policy: nn.Module) -> bool:
    """Whether :func:`prepare` has put adapters into it."""
    return any(name.endswith(".base_layer") for name, _ in policy.named_modules())


def merged_state(policy: nn.Module) -> dict[str, torch.Tensor]:
    """The state dictionary under the names before the adapters, each adapted weight W + (alpha / r) B A."""
    from peft.tuners.lora import LoraLayer

    deltas = {
        name: _delta(module) for name, module in policy.named_modules() if isinstance(module, LoraLayer)
    }
    return dict(_merged(policy.state_dict(), deltas))


def _merged(
    state: dict[str, torch.Tensor], deltas: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in state.items():
        if ".lora_" in name:
            continue
        layer, inside, last = name.rpartition(".base_layer.")
        if not inside:
            yield name, value
        elif last == "weight":
            yield f"{layer}.weight", (value + deltas[layer].to(value.dtype)).contiguous()
        else:
            yield f"{layer}.{last}", value


def _delta(layer: Any) -> torch.Tensor:
    """What the adapter adds to the layer's weight."""
    delta: torch.Tensor = layer.get_delta_weight(_ADAPTER)
    return delta


def lora_targets(policy: PreTrainedPolicy) -> str | list[str]:
    """The layers that LoRA adapts: those that LeRobot names for the policy, or every linear one."""
    named = (policy._get_default_peft_targets() or {}).get("target_modules")
    if named:
        return str(named) if isinstance(named, str) else list(named)
    # Not the projections inside torch's own attention, which reads their weights past their forward.
    return [name for name, module in policy.named_modules() if type(module) is nn.Linear]


def _add_adapters(policy: PreTrainedPolicy, rank: int) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    targets = lora_targets(policy)
    if not targets:
        raise InputError(f"{policy.config.type} has no linear layer for LoRA: train it with lora_rank 0")
    for parameter in policy.parameters():
        parameter.requires_grad_(False)
    settings = LoraConfig(r=rank, lora_alpha=_LORA_SCALE * rank, target_modules=targets, lora_dropout=0.0)
    try:
        inject_adapter_in_model(settings, policy, adapter_name=_ADAPTER)
    except ValueError as error:
        raise InputError(f"LoRA of {policy.config.type}: {' '.join(str(error).split())[:200]}") from error
    for parameter in policy.parameters():
        if parameter.requires_grad:
            # Beside bfloat16 weights too: they are few, and small steps would be lost in bfloat16.
            parameter.data = parameter.data.float()


def _device(policy: nn.Module) -> torch.device:
    return next(policy.parameters()).device
