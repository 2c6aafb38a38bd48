"""Step functions for the tests; at the top level of a module, as steps must be."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import Failure, InputError
from workflows.progress import Progress


def write_noise(
    out: Path, *, size: int, seed: int, seconds: float = 0.0, progress: Progress
) -> dict[str, Any]:
    """Random numbers into two files, with a pause between them."""
    numbers = np.random.default_rng(seed).random(size)
    np.save(out / "first.npy", numbers[: size // 2])
    for done in range(10):
        progress(done, 10, "sleeping")
        time.sleep(seconds / 10)
    (out / "folder").mkdir()
    np.save(out / "folder" / "second.npy", numbers[size // 2 :])
    return {"sum": float(numbers.sum()), "process": "any"}


def meet(out: Path, *, here: str, other: str, place: Path, progress: Progress) -> None:
    """Ends only when a step that calls itself ``other`` runs at the same time."""
    (place / here).touch()
    deadline = time.monotonic() + 60
    while not (place / other).exists():
        if time.monotonic() > deadline:
            raise Failure(f"{other} did not run beside {here}")
        time.sleep(0.02)
    for done in range(5):
        progress(done, 5, "together")
        time.sleep(0.3)


def add_up(out: Path, *, left: Path, right: Path, others: list[Path] | None = None) -> dict[str, Any]:
    """The sum of the first halves of its inputs."""
    folders = [left, right, *(others or [])]
    total = sum(float(np.load(folder / "first.npy").sum()) for folder in folders)
    (out / "sum.txt").write_text(repr(total))
    return {"total": total}


def read_text(out: Path, *, file: Path) -> dict[str, Any]:
    """The text of a file that no step made."""
    return {"text": file.read_text()}


def refuse(out: Path, *, reason: str) -> None:
    """Raises for bad input."""
    (out / "half.txt").write_text("half")
    raise InputError(reason)


def fail(out: Path, *, kind: str) -> None:
    """Raises an error that is not the input's."""
    if kind == "Failure":
        raise Failure("the gate was not passed")
    raise ZeroDivisionError("division by zero")


def die_once(out: Path, *, mark: Path) -> dict[str, Any]:
    """Its process dies at the first attempt."""
    (out / "half.txt").write_text("half")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (out / "half.txt").write_text("whole")
    return {}


def tell_environment(out: Path) -> dict[str, Any]:
    """What a worker process sees."""
    return {"threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid(), "torch": "torch" in sys.modules}


def write_manifest(out: Path) -> None:
    """Writes a file whose name is taken."""
    (out / "manifest.json").write_text("{}")


def return_path(out: Path) -> dict[str, Any]:
    """Returns what is no JSON."""
    return {"out": out}
