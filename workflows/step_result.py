"""What a published step has on disk: its folder, its files, and the manifest that says from what they are."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from workflows.step_recipe import content_digest, files_below

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class StepResult:
    """A published step: its folder and its manifest."""

    name: str
    key: str
    path: Path
    manifest: dict[str, Any]

    @property
    def result(self) -> dict[str, Any]:
        """What the step's function returned (empty where it returned nothing)."""
        return dict(self.manifest["result"] or {})

    @property
    def seconds(self) -> float:
        """How long the step took to compute."""
        return float(self.manifest["seconds"])


def read_result(root: str, name: str, key: str) -> StepResult | None:
    """The result published below the folder ``root``, or ``None``.

    Raises ``InputError``, with what to do, for a damaged manifest.
    """
    # Plain strings and an unbuffered file: there may be ten thousand of them.
    folder = f"{root}/{name}/{key}"
    try:
        with io.FileIO(f"{folder}/{MANIFEST}") as stream:
            return StepResult(name, key, Path(folder), json.loads(stream.readall()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(
            f"{folder}/{MANIFEST} is damaged ({error}): put it back from a copy, or remove {folder}, "
            "which is computed again when it is needed"
        ) from error


def visible(folder: Path) -> list[str]:
    """The names in a folder that have no leading dot, sorted; none where it is no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def outputs(folder: Path) -> dict[str, Path]:
    """The files in a step's folder besides its manifest, by their path in it."""
    return {
        path.relative_to(folder).as_posix(): path for path in files_below(folder) if path != folder / MANIFEST
    }


def file_facts(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"sha256": content_digest(path), "bytes": path.stat().st_size}
