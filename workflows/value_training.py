"""Trains one value model, in this process or in several that Ray Train starts, on one machine or many.

Several processes share every batch (:mod:`value_model.training_group`), so that the model is the same up
to the order of sums. What a training needs to go on after a kill is a file beside the steps; it serves a
repeated step and, with several processes, the ones that replace a lost process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.gpu_share import device_here
from workflows.ray_training import train_together

if TYPE_CHECKING:  # load torch
    from pipeline.frame_table import FrameTable
    from value_model.returns import Outcomes
    from value_model.training import FoldResult, ValueTrainingConfig

Progress = Callable[[int, int], None]


def train_member(
    table: FrameTable,
    outcomes: Outcomes,
    config: ValueTrainingConfig,
    fold: int,
    member: int,
    out: Path,
    progress: Progress | None = None,
    *,
    resume: Path | None = None,
    workers: int = 1,
) -> FoldResult:
    """``train_fold`` in ``workers`` processes; see there. Where Ray gave a process a GPU, it is that one.

    With several processes, ``out``, ``resume`` and the frame cache must be the same files on every machine.
    A lost process is replaced, and all go on from ``resume``. Raises ``Failure`` where processes are lost
    again and again.
    """
    from value_model.training import FoldResult, train_fold

    # What Ray hides is found by no number.
    config = replace(config, device=device_here(config.device))
    if workers == 1:
        return train_fold(table, outcomes, config, fold, member, out, progress, resume=resume)
    out = out.absolute()
    said = train_together(
        _train_share,
        (table, outcomes, config, fold, member, out, resume and resume.absolute()),
        workers=workers,
        device=config.device,
        out=out,
        what="a value model",
        progress=progress and (lambda done, total, _: progress(done, total)),
    )
    return FoldResult(**{**said, "path": out})


def _train_share(
    device: str,
    table: FrameTable,
    outcomes: Outcomes,
    config: ValueTrainingConfig,
    fold: int,
    member: int,
    out: Path,
    resume: Path | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """What each of the processes does: the result's fields."""
    from value_model.training import train_fold
    from value_model.training_group import ProcessGroup

    # Without its number: all processes must say the same of the training that they go on with.
    config = replace(config, device=device.partition(":")[0])
    result = train_fold(
        table, outcomes, config, fold, member, out, progress, resume=resume, group=ProcessGroup()
    )
    return {**asdict(result), "path": str(out)}
