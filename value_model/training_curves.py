"""Training curves: a file of JSON lines always, TensorBoard or Weights & Biases where asked for.

A line of the file is ``{"step": 50, "name": "loss/training", "value": 4.9}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, Self

from pipeline.errors import InputError

CURVES_NAME = "curves.jsonl"
Point = tuple[str, int, float]  # name, step, value


class Curves(Protocol):
    """Where the numbers of a training go."""

    def scalar(self, name: str, step: int, value: float) -> None:
        """One number: ``name`` such as "loss/training" was ``value`` after ``step`` steps."""


class JsonLinesCurves:
    """Appends each number to a file at once; a context manager."""

    def __init__(self, path: Path, before: Iterable[Point] = ()) -> None:
        """Begins ``path`` anew with the points of ``before``, those of a training that now goes on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        # One whole line a write: a reader that follows the file sees no half ones.
        self._file = path.open("w", buffering=1)
        for name, step, value in before:
            self.scalar(name, step, value)

    def scalar(self, name: str, step: int, value: float) -> None:
        """See :class:`Curves`."""
        self._file.write(json.dumps({"step": step, "name": name, "value": value}) + "\n")

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardCurves:
    """Event files below ``folder``, for ``tensorboard --logdir``."""

    def __init__(self, folder: Path) -> None:
        """Raises ``InputError`` where TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "TensorBoard is not installed: pip install tensorboard, or leave out --log"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))

    def scalar(self, name: str, step: int, value: float) -> None:
        """See :class:`Curves`."""
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what is left."""
        self._writer.close()


class WandbCurves:
    """One run of Weights & Biases; ``WANDB_MODE=offline`` keeps it below ``folder``."""

    def __init__(self, folder: Path, project: str, name: str) -> None:
        """Begins a run. Raises ``InputError`` where wandb is not installed or cannot begin one."""
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                "Weights & Biases is not installed: pip install wandb, or leave out --log"
            ) from error
        folder.mkdir(parents=True, exist_ok=True)
        try:
            # Several models train at a time: each has a run of its own.
            self._run: Any = wandb.init(
                project=project, name=name, dir=str(folder), reinit="create_new", settings={"silent": True}
            )
        except Exception as error:
            raise InputError(
                f"Weights & Biases cannot begin a run ({' '.join(str(error).split())}): log in with "
                "'wandb login', or set WANDB_MODE=offline"
            ) from error

    def scalar(self, name: str, step: int, value: float) -> None:
        """See :class:`Curves`."""
        self._run.log({name: value}, step=step)

    def close(self) -> None:
        """Ends the run, uploading what is left."""
        self._run.finish()


def read_curves(path: Path) -> list[Point]:
    """Every number in a file of JSON lines, in order; none where there is no file yet."""
    try:
        lines = path.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    # The last line may be about to be written.
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(entry["name"], entry["step"], entry["value"]) for entry in entries]
