"""Shows the curves of running training steps in TensorBoard or Weights & Biases, if somebody wants that.

Steps always write their curves into their own folder; what a person looks at them with is no part of a
step. So the driver follows those files and passes the numbers on, also those of steps that were done before.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from value_model.training_curves import CURVES_NAME, TensorBoardCurves, WandbCurves, read_curves
from workflows.step_files import CHECKPOINT
from workflows.step_recipe import Step
from workflows.step_store import StepStore

PROJECT = "recap-value"
_LOOK_S = 1.0


class Log(StrEnum):
    """Where curves go besides their files."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"


class CurveFollower:
    """Passes on the curves of training steps while the ``with`` block runs; a context manager."""

    def __init__(self, store: StepStore, steps: Mapping[str, Step], log: Log, folder: Path) -> None:
        """``steps`` by the name of their run; ``folder`` gets a folder for each of them.

        Raises ``InputError`` where what ``log`` needs is not installed or cannot begin.
        """
        self._store, self._steps = store, dict(steps)
        self._told = dict.fromkeys(self._steps, 0)
        self._sinks = {name: _open(log, folder, name, step) for name, step in self._steps.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="curves", daemon=True)

    def __enter__(self) -> Self:
        """Begins to follow."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Passes on what is left, and closes."""
        self._ended.set()
        self._thread.join()
        self._look()
        for sink in self._sinks.values():
            sink.close()

    def _follow(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        for name, step in self._steps.items():
            points = read_curves(self._curves_of(step))
            for point, number, value in points[self._told[name] :]:
                self._sinks[name].scalar(point, number, value)
            # A step that goes on after a kill writes again what it had written: as many, and the same.
            self._told[name] = max(self._told[name], len(points))

    def _curves_of(self, step: Step) -> Path:
        final = self._store.path(step)
        aside = sorted(final.parent.glob(f".{step.key}.*.partial"))
        folder = aside[-1] if aside and not final.is_dir() else final
        return folder / CHECKPOINT / CURVES_NAME


def _open(log: Log, folder: Path, name: str, step: Step) -> TensorBoardCurves | WandbCurves:
    if log is Log.TENSORBOARD:
        return TensorBoardCurves(folder / f"{name}-{step.key[:8]}")
    return WandbCurves(folder, PROJECT, f"{name}-{step.key[:8]}")
