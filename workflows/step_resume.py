"""What long steps keep to go on after a kill: ``steps/.resume/<key>...``, gone once the step is published."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from workflows.step_recipe import KEY_LENGTH

FOLDER = ".resume"
"""Below ``steps/``: what steps that were interrupted kept, by their keys."""


def resume_path(steps: Path, key: str, suffix: str = ".safetensors") -> Path:
    """Where the step of this key keeps its state; any name that begins with the key is the step's.

    Not in the step's folder aside, which goes with the process.
    """
    return steps / FOLDER / f"{key}{suffix}"


def forget(steps: Path, key: str) -> None:
    """Removes what the step kept, files and folders, half-written ones too."""
    for kept in (steps / FOLDER).glob(f"*{key}*"):
        _remove(kept)


def sweep_kept(steps: Path, published: Callable[[], set[str]]) -> None:
    """Removes what steps kept whose keys are ``published``: a kill came between rename and removal."""
    kept = list((steps / FOLDER).glob("*"))
    done = published() if kept else set()
    for path in kept:
        if path.name.lstrip(".")[:KEY_LENGTH] in done:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
