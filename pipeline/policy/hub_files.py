"""Files of a model hub: only what is on this machine, unless somebody has said that they may be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from huggingface_hub import constants

from pipeline.errors import InputError

ALLOW = "--allow-download"

# Tokenizers that LeRobot's processors of these types name themselves; no option says another one.
_TOKENIZERS = dict.fromkeys(("pi0", "pi05", "pi0_fast"), "google/paligemma-3b-pt-224")


@contextmanager
def local_only(wanted: bool) -> Iterator[None]:
    """Within, where ``wanted``, the Hugging Face libraries read their cache and never the network.

    Sets the library's own switch, which ``HF_HUB_OFFLINE=1`` sets at its import: by then it is too late
    for a process that has imported it for something else.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def require_local(source: str, allow_download: bool) -> str:
    """``source``, a folder or a hub id; ``InputError`` for an id that is not cached and not to be fetched."""
    missing = _missing(source, allow_download)
    if missing == "folder":
        raise InputError(
            f"there is no folder {source}: name one that holds a LeRobot checkpoint, or a hub id"
        )
    if missing == "files":
        raise InputError(
            f"{source} is not a folder here: to fetch a model of that name from the Hugging Face Hub, "
            f"add {ALLOW}"
        )
    return source


def _missing(source: str, allow_download: bool) -> Literal["folder", "files"] | None:
    """What is not there of ``source``: the folder of that path, or on this machine the hub id's files."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        return None
    if Path(source).is_absolute() or source.startswith(".") or source.count("/") != 1:
        return "folder"
    cached = allow_download or isinstance(try_to_load_from_cache(source, "config.json"), str)
    return None if cached else "files"


def require_backbone_weights(name: str | None, allow_download: bool) -> None:
    """Raises ``InputError`` where torchvision would fetch the weights of that name, which nobody allowed."""
    if name is None or allow_download:
        return
    import torch
    from torchvision.models import get_weight  # type: ignore[import-untyped]  # ships no types

    try:
        url = get_weight(name).url
    except (KeyError, ValueError) as error:
        raise InputError(f"torchvision has no weights {name!r}: {error}") from error
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not file.is_file():
        raise InputError(
            f"the image encoder's weights {name} are not on this machine: {ALLOW} of 'recap policy train' "
            f"fetches them (or put {url} there as {file}); or begin with random ones: "
            '--policy.pretrained_backbone_weights=null, in recap.toml pretrained_backbone_weights = "none" '
            "under [policy.options]"
        )


def require_backbone_files(option: str, source: str, allow_download: bool) -> None:
    """Raises ``InputError`` where the model that ``option`` names, a folder or hub id, is not here."""
    missing = _missing(source, allow_download) if source else None
    if missing == "folder":
        raise InputError(f"option {option}: there is no folder {source}")
    if missing == "files":
        raise InputError(
            f"option {option}: the files of {source} are not on this machine: fetch them once ('hf download "
            f"{source}'; 'recap policy train' does with {ALLOW}), or name a folder"
        )


def require_tokenizer(policy_type: str, allow_download: bool) -> None:
    """Raises ``InputError`` where the tokenizer that policies of this type read is not on this machine.

    LeRobot reads it after it has made the weights: of the types that are meant here, billions.
    """
    from huggingface_hub import try_to_load_from_cache

    name = _TOKENIZERS.get(policy_type)
    if name is None or allow_download:
        return
    if not isinstance(try_to_load_from_cache(name, "tokenizer_config.json"), str):
        raise InputError(
            f"{policy_type} reads its prompts with the tokenizer of {name}, which is not on this machine: "
            f"accept its licence on the hub and fetch it once ('hf download {name} --include \"*token*\"'; "
            f"'recap policy train' does with {ALLOW})"
        )
