"""A pretrained backbone's folder: found, told apart by its digest, and loaded with clear errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import InputError
from value_model.value_network import one_line
from value_model.vlm_config import VlmNetworkConfig

# What decides a backbone's outputs: weights, shapes, tokenizer and preprocessing. A model card does not.
_DIGESTED = ("*.safetensors", "*.json", "*.model", "*.txt")
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone: the Transformers model without language-model head, its tokenizer and the
    settings of its image preprocessor (an ``AutoImageProcessor``)."""

    model: nn.Module
    tokenizer: Any
    image_processor: Any


def find_backbone(config: VlmNetworkConfig) -> Path:
    """The folder of the backbone; one of the Hub is downloaded first if ``config`` allows that.

    Raises ``InputError`` where there is none, or where files are missing in it.
    """
    folder = Path(config.backbone)
    if not folder.is_dir():
        folder = _download(config)
    needed = {
        "config.json": ("config.json",),
        "weights (*.safetensors)": ("*.safetensors",),
        "a tokenizer": ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json"),
        "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
    }
    for name, patterns in needed.items():
        if not any(path.is_file() for pattern in patterns for path in folder.glob(pattern)):
            raise InputError(f"the backbone {folder} lacks {name}: copy the checkpoint there again, whole")
    return folder


def checked_digest(folder: Path, config: VlmNetworkConfig) -> str:
    """SHA-256 of the backbone's files, hexadecimal.

    Raises ``InputError`` where ``config`` names another: what was trained on one backbone means nothing
    on another.
    """
    files = sorted({path for pattern in _DIGESTED for path in folder.glob(pattern) if path.is_file()})
    whole = hashlib.sha256()
    for path in files:
        stat = path.stat()
        whole.update(f"{path.name}\0{_digest_of(path, stat.st_size, stat.st_mtime_ns)}\n".encode())
    digest = whole.hexdigest()
    if config.backbone_digest not in ("", digest):
        raise InputError(
            f"the backbone {folder} is not the one that this value model was trained on (digest "
            f"{digest[:12]}, not {config.backbone_digest[:12]}): put that one back, or train again"
        )
    return digest


@lru_cache(maxsize=256)
def _digest_of(path: Path, size: int, modified_ns: int) -> str:
    """SHA-256 of a file; an ensemble's models name the same gigabytes, which are read once a process."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            content.update(chunk)
    return content.hexdigest()


def load_backbone(folder: Path, dtype: torch.dtype) -> Backbone:
    """The backbone in ``folder`` with its weights in ``dtype``, on the CPU, in evaluation mode.

    Never runs code from the folder, and reads safetensors only. Raises ``InputError`` in one line for
    files that cannot be read or that do not fit each other.
    """
    from transformers import AutoConfig, AutoImageProcessor

    # Without the second, Transformers would ask on the terminal whether to run a folder's own code.
    only: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        json.loads((folder / "config.json").read_text())
        with quiet_transformers():
            shape = AutoConfig.from_pretrained(folder, **only)
            _check_image_tower(folder, shape)
            model, missing = _load_model(folder, shape, dtype, only)
            tokenizer = _load_tokenizer(folder, only)
            image_processor = AutoImageProcessor.from_pretrained(folder, **only)
    except InputError:
        raise
    except Exception as error:  # Transformers' loaders raise almost any type over a damaged file
        raise InputError(f"the backbone {folder} cannot be loaded: {one_line(error)}") from error
    if missing:
        raise InputError(
            f"the backbone {folder} lacks {len(missing)} of its weights ({missing[0]}, ...): copy the "
            "checkpoint there again, whole"
        )
    return Backbone(model.eval(), tokenizer, image_processor)


def _load_model(
    folder: Path, shape: Any, dtype: torch.dtype, only: dict[str, Any]
) -> tuple[nn.Module, list[str]]:
    """The model and the names of the weights that are in none of its files."""
    from transformers import AutoModel, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    # A generative model is loaded with its head, which goes at once: only so are the weights' names of
    # checkpoints from before Transformers 4.52 understood.
    generative = shape.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if shape.model_type == "siglip":
        # The image head pools the patches into one vector; the value network reads them one by one.
        shape.vision_config.vision_use_head = False
    loader: Any = AutoModelForImageTextToText if generative else AutoModel
    whole, info = loader.from_pretrained(
        folder, config=shape, dtype=dtype, use_safetensors=True, output_loading_info=True, **only
    )
    return whole.base_model, sorted(k for k in info["missing_keys"] if not k.startswith("lm_head"))


def _load_tokenizer(folder: Path, only: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        return AutoTokenizer.from_pretrained(folder, **only)
    except ImportError:
        # SigLIP's own class needs SentencePiece; its checkpoints have the same tokenizer as JSON, too.
        if not (folder / "tokenizer.json").is_file():
            raise
        return PreTrainedTokenizerFast.from_pretrained(folder, **only)


def _check_image_tower(folder: Path, shape: Any) -> None:
    if not isinstance(getattr(getattr(shape, "vision_config", None), "image_size", None), int):
        raise InputError(
            f"the backbone {folder}, of type {shape.model_type!r}, has no image tower of one image size: "
            "take a SigLIP, CLIP, SmolVLM, Idefics3, PaliGemma or LLaVA checkpoint"
        )


def _download(config: VlmNetworkConfig) -> Path:
    if not config.allow_download:
        raise InputError(
            f"the backbone {config.backbone} is gone: put the folder back, or, where this is an id on the "
            "Hugging Face Hub, use --allow-download (allow_download = true in recap.toml)"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(config.backbone, allow_patterns=list(_DIGESTED)))
    except Exception as error:  # network, credentials, names: one line each, whatever their type
        raise InputError(
            f"the backbone {config.backbone} could not be downloaded: {one_line(error)}"
        ) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Loads without progress bars and without the list of weights that are not needed here."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
