"""A new policy that begins with the backbone of another ``gen3_vla`` checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pipeline.errors import InputError, one_line

_ENCODER = "encoder."
_STARTS = ("act", "speaker.start")  # the same token, of an encoder without and with action tokens


@torch.no_grad()
def load_backbone_weights(encoder: nn.Module, checkpoint: str) -> None:
    """Copies the backbone's weights in the folder ``checkpoint`` into ``encoder``.

    What belongs to sub-tasks and action tokens stays fresh. Raises ``InputError`` where there is no such
    checkpoint or its backbone is another.
    """
    path = Path(checkpoint) / "model.safetensors"
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"pretrained_backbone: {path} cannot be read: {one_line(error)}") from error
    stored = {k.removeprefix(_ENCODER): v for k, v in found.items() if k.startswith(_ENCODER)}
    stored |= {start: stored[name] for name in _STARTS if name in stored for start in _STARTS}
    backbone = "backbone." if hasattr(encoder, "backbone") else ""
    for name, own in encoder.state_dict().items():
        if name.startswith(backbone) or name in _STARTS:
            there = stored.get(name)
            if there is None or there.shape != own.shape:
                raise InputError(
                    f"pretrained_backbone: the backbone of {checkpoint} is another ({_ENCODER}{name} does "
                    "not fit): give a checkpoint with the same backbone settings"
                )
            own.copy_(there)
