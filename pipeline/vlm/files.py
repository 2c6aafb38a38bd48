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

from pipeline.errors import InputError, one_line

_WEIGHTS = "*.safetensors"
# What decides a backbone's outputs: weights, shapes, tokenizer and preprocessing. A model card does not.
_DIGESTED = (_WEIGHTS, "*.json", "*.model", "*.txt")
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf")
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Backbone:
    """A loaded backbone: the Transformers model without language-model head, its tokenizer and the
    settings of its image preprocessor (an ``AutoImageProcessor``)."""

    model: nn.Module
    tokenizer: Any
    image_processor: Any


def find_backbone(name: str, *, allow_download: bool = False, weights: bool = True) -> Path:
    """The folder of the backbone ``name``: a folder, or the id of a checkpoint on the Hugging Face Hub.

    One of the Hub is fetched with ``allow_download``, and without it is found where it was fetched before.
    ``weights``: whether they have to be there. Raises ``InputError`` where there is none, or where files are
    missing in it.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _from_hub(name, allow_download)
    needed = {
        "config.json": ("config.json",),
        **({"weights (*.safetensors)": (_WEIGHTS,)} if weights else {}),
        "a tokenizer": ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json"),
        "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
    }
    for what, patterns in needed.items():
        if not _has(folder, *patterns):
            raise InputError(f"the backbone {folder} lacks {what}: copy the checkpoint there again, whole")
    return folder


def checked_digest(folder: Path, expected: str = "", of: str = "this model") -> str:
    """SHA-256 of the backbone's files, hexadecimal.

    Raises ``InputError`` where it is not the one that is ``expected``, unless that is empty: what was trained
    on one backbone means nothing on another. ``of``: what was trained, for the message.
    """
    files = sorted({path for pattern in _DIGESTED for path in folder.glob(pattern) if path.is_file()})
    whole = hashlib.sha256()
    for path in files:
        stat = path.stat()
        whole.update(f"{path.name}\0{_digest_of(path, stat.st_size, stat.st_mtime_ns)}\n".encode())
    digest = whole.hexdigest()
    if expected not in ("", digest):
        raise InputError(
            f"the backbone {folder} is not the one that {of} was trained on (digest "
            f"{digest[:12]}, not {expected[:12]}): put that one back, or train again"
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


def load_backbone(folder: Path, dtype: torch.dtype, *, weights: bool = True) -> Backbone:
    """The backbone in ``folder`` with its weights in ``dtype``, on the CPU, in evaluation mode.

    Without ``weights`` a folder that has none gives random ones, from torch's global generator: whoever asks
    for that loads a checkpoint's over them. Never runs code from the folder, and reads safetensors only.
    Raises ``InputError`` in one line for files that cannot be read or that do not fit each other.
    """
    from transformers import AutoConfig, AutoImageProcessor

    # Without the second, Transformers would ask on the terminal whether to run a folder's own code.
    only: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    random = not weights and not _has(folder, _WEIGHTS)
    if random and _has(folder, *_OTHER_WEIGHTS):
        raise InputError(f"the backbone {folder} has its weights in another format: save them as safetensors")
    try:
        json.loads((folder / "config.json").read_text())
        with quiet_transformers():
            shape = AutoConfig.from_pretrained(folder, **only)
            _check_image_tower(folder, shape)
            model, missing = _load_model(folder, shape, dtype, None if random else only)
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


def model_type(folder: Path) -> str:
    """What Transformers calls the kind of model in ``folder``; empty where its ``config.json`` says nothing.

    Raises ``InputError`` where that cannot be read.
    """
    try:
        document = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"the backbone {folder} cannot be loaded: {one_line(error)}") from error
    return str(document.get("model_type", "")) if isinstance(document, dict) else ""


def _load_model(
    folder: Path, shape: Any, dtype: torch.dtype, only: dict[str, Any] | None
) -> tuple[nn.Module, list[str]]:
    """The model and the names of the weights that are in none of its files; ``None``: random weights."""
    from transformers import AutoModel, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    # A generative model is loaded with its head, which goes at once: only so are the weights' names of
    # checkpoints from before Transformers 4.52 understood.
    generative = shape.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if shape.model_type == "siglip":
        # The image head pools the patches into one vector; here they are read one by one.
        shape.vision_config.vision_use_head = False
    loader: Any = AutoModelForImageTextToText if generative else AutoModel
    if only is None:
        # Made in ``dtype``, not cast to it: that would round the rotary frequencies, too.
        return loader.from_config(shape, dtype=dtype, trust_remote_code=False).base_model, []
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


def _has(folder: Path, *patterns: str) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


def _from_hub(name: str, allow_download: bool) -> Path:
    from huggingface_hub import snapshot_download

    patterns = list(_DIGESTED)
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=not allow_download))
    except Exception as error:  # network, credentials, names: one line each, whatever their type
        if allow_download:
            raise InputError(f"the backbone {name} could not be downloaded: {one_line(error)}") from error
        raise InputError(
            f"the backbone {name} is not on this machine: put its folder there, or, where this is an id on "
            "the Hugging Face Hub, use --allow-download (allow_download = true in recap.toml)"
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
