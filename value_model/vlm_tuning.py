"""How much of a backbone is trained: nothing, low-rank adapters, or all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pipeline.errors import InputError, one_line
from value_model.vlm_config import LORA_EVERYWHERE, VlmNetworkConfig


def weight_dtype(config: VlmNetworkConfig) -> torch.dtype:
    """What the backbone's weights are held in.

    All of them in training need float32: in bfloat16 (8 bits of precision) an update of less than a
    256th of a weight is rounded away.
    """
    held_low = config.precision == "bfloat16" and config.tune != "full"
    return torch.bfloat16 if held_low else torch.float32


def set_up_tuning(model: Any, config: VlmNetworkConfig) -> None:
    """Marks what is trained (``requires_grad``), adding adapters (arXiv 2106.09685) to ``model`` for LoRA.

    Adapters are float32 whatever the backbone is held in. Raises ``InputError`` where the adapters'
    targets are not in the backbone.
    """
    model.requires_grad_(False)
    if config.tune == "frozen":
        return
    if config.tune == "lora":
        _add_adapters(model, config)
    else:
        unread = unread_parts(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(unread))
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def unread_parts(model: Any) -> tuple[str, ...]:
    """How the names begin of those of the model's parameters that have no part in a value.

    They would never get a gradient, which data-parallel training takes for a mistake.
    """
    shape = model.config
    if shape.model_type == "clip":
        return ("logit_scale", "visual_projection", "text_projection", "vision_model.post_layernorm")
    if shape.model_type == "siglip":
        return ("logit_scale", "logit_bias", "vision_model.head")
    if shape.model_type == "llava" and isinstance(shape.vision_feature_layer, int):
        # Reads the patches before the image tower's last layers.
        layers = shape.vision_config.num_hidden_layers
        last_read = shape.vision_feature_layer % (layers + 1)
        tower = "vision_tower.vision_model."
        unread = [f"{tower}encoder.layers.{layer}." for layer in range(last_read, layers)]
        return (f"{tower}post_layernorm", *unread)
    return ()


def _add_adapters(model: nn.Module, config: VlmNetworkConfig) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    parts = unread_parts(model)
    unread = [name for name, _ in model.named_modules() if name.startswith(parts)]
    adapters = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        target_modules="all-linear" if config.lora_targets == LORA_EVERYWHERE else list(config.lora_targets),
        exclude_modules=unread or None,
    )
    try:
        inject_adapter_in_model(adapters, model)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"LoRA on {list(config.lora_targets)} does not fit the backbone: {one_line(error)}"
        ) from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
