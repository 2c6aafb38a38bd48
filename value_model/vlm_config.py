"""The configuration of the value network on a pretrained vision-language backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError
from value_model.bins import BIN_COUNT

LORA_EVERYWHERE = ("all-linear",)


@dataclass(frozen=True)
class VlmNetworkConfig:
    """Which backbone, how much of it is trained, and what reads it out.

    backbone: a folder with a Hugging Face checkpoint (``config.json``, ``*.safetensors``, tokenizer,
    preprocessor), or, with ``allow_download``, the id of one on the Hub: a generative vision-language
    model or a dual encoder (an image tower and a text tower). backbone_digest: SHA-256 of its files;
    empty until the network was built. cameras, image_size, state_size, bins: as for the small network;
    ``image_size`` is that of the cached frames, which are resized to the backbone's own on the device.
    tune: "frozen" trains the value token, readout and head only, "lora" adapters too, "full" all.
    precision: what the backbone computes in; a frozen or LoRA backbone is also held in it, a fully
    trained one is held in float32 and computes under autocast. lora_rank, lora_alpha, lora_targets:
    of the adapters; targets are names of linear layers, or "all-linear". gradient_checkpointing: less
    memory for a second forward pass, where gradients flow. words: how many of the backbone's tokens a
    task may take. readout_width, readout_layers, readout_heads: of the dual encoder's readout.
    dropout: in the readout and the head. kind: always "vlm".
    """

    backbone: str = ""
    backbone_digest: str = ""
    allow_download: bool = False
    cameras: int = 2
    image_size: int = 84
    state_size: int = 15
    bins: int = BIN_COUNT
    tune: Literal["frozen", "lora", "full"] = "frozen"
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_targets: tuple[str, ...] = LORA_EVERYWHERE
    gradient_checkpointing: bool = False
    words: int = 32
    readout_width: int = 256
    readout_layers: int = 2
    readout_heads: int = 4
    dropout: float = 0.1
    kind: Literal["vlm"] = "vlm"

    def __post_init__(self) -> None:
        if self.kind != "vlm":
            raise InputError(f"a vlm value network's configuration is of kind 'vlm', not {self.kind!r}")
        self._check_backbone()
        self._check_shape()
        if self.tune not in ("frozen", "lora", "full"):
            raise InputError(f"value network: tune {self.tune!r} is not frozen, lora or full")
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(f"value network: precision {self.precision!r} is not float32 or bfloat16")
        if self.lora_rank < 1 or self.lora_alpha <= 0 or not self.lora_targets or "" in self.lora_targets:
            raise InputError(
                f"value network: LoRA of rank {self.lora_rank}, alpha {self.lora_alpha}, on "
                f"{list(self.lora_targets)}: rank and alpha are positive, and targets name linear layers"
            )

    def _check_backbone(self) -> None:
        if not self.backbone:
            raise InputError(
                "value network of kind vlm: name its backbone, a folder with a Hugging Face checkpoint"
            )
        if not self.allow_download and not Path(self.backbone).is_dir():
            raise InputError(
                f"value network: there is no folder {self.backbone!r}; give the folder of a downloaded "
                "checkpoint, or, where this is an id on the Hugging Face Hub, use --allow-download "
                "(allow_download = true in recap.toml)"
            )

    def _check_shape(self) -> None:
        if self.cameras < 1 or self.image_size < 16 or self.state_size < 0 or self.words < 1:
            raise InputError(
                f"value network of {self.cameras} cameras, {self.image_size} px, {self.state_size} state "
                f"values, {self.words} words: needs a camera of 16 px or more, a state of 0 or more, a word"
            )
        if self.bins < 3 or self.bins % 2 == 0:
            raise InputError(f"value network: {self.bins} bins, but their number is odd and 3 or more")
        if min(self.readout_layers, self.readout_heads) < 1 or self.readout_width % self.readout_heads:
            raise InputError(
                f"value network: a readout of width {self.readout_width} does not divide into "
                f"{self.readout_heads} heads"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"value network: dropout {self.dropout} is not in [0, 1)")


def backbone_and_digest(config: VlmNetworkConfig) -> tuple[Path, str]:
    """The folder of the backbone, fetched first where ``config`` allows that, and the digest of its files.

    Raises ``InputError`` where it is missing, or another than ``config.backbone_digest``.
    """
    from pipeline.vlm.files import (
        checked_digest,
        find_backbone,
    )  # takes torch, which a configuration does not

    folder = find_backbone(config.backbone, allow_download=config.allow_download)
    return folder, checked_digest(folder, config.backbone_digest, "this value model")
