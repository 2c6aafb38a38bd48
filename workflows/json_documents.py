"""JSON files of a workspace, read with one wording for what is wrong with them: path, fault, what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from workflows.step_result import MANIFEST


def read_json(path: Path, remedy: str = "") -> Any:
    """What a JSON file holds. ``remedy``: what to do where it is damaged; default: see :func:`damaged`.

    Raises ``InputError`` for a file that is truncated or otherwise no JSON, ``OSError`` for one that is
    missing or cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise damaged(path, error, remedy) from error


def damaged(path: Path, fault: object, remedy: str = "") -> InputError:
    """The error for a damaged file; of one in a published step, by default, how to have it again."""
    return InputError(f"{path} is damaged ({fault}): {remedy or _remedy(path)}")


def _remedy(path: Path) -> str:
    for folder in path.parents:
        if (folder / MANIFEST).is_file():
            return f"put it back from a copy, or remove {folder}, which is computed again when it is needed"
    return "put it back from a copy"
