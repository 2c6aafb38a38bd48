"""Folders that a policy's options name: what is in them decides a training, so it is in the step's key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workflows.labelled_subtasks import OPTION
from workflows.step_recipe import ExternalInput


def folders_of(options: Mapping[str, Any]) -> list[ExternalInput]:
    """Every folder that a value of ``options`` names, nested ones too, with the digest of its files.

    Such as a vision-language model's or another checkpoint's; names of sub-tasks are none. Sorted by path,
    each once.
    """
    found = {text for name, value in options.items() if name != OPTION for text in _texts(value)}
    return [ExternalInput.of(Path(text).resolve()) for text in sorted(found) if _is_folder(text)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _is_folder(text: str) -> bool:
    try:
        return bool(text.strip()) and Path(text).is_dir()
    except (OSError, ValueError):  # too long, or holds a null byte: a text, not a path
        return False
