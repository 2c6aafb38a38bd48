"""Trains one policy in several processes that Ray Train starts, on one machine or many.

What a training needs to go on after a kill is its resume file; it serves the processes that replace those
that a lost one leaves, and a command that is given again.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workflows.policy_training_config import PolicyTrainingConfig
from workflows.ray_training import Progress as Told
from workflows.ray_training import train_together

if TYPE_CHECKING:  # load torch
    from pipeline.frame_table import FrameTable
    from workflows.policy_training import TrainingResult
    from workflows.policy_training_loop import Progress

_FRAMES = "frames"


def train_policy_together(
    table: FrameTable,
    indicators: np.ndarray,
    config: PolicyTrainingConfig,
    start: Path | None,
    out: Path,
    progress: Progress | None = None,
    *,
    resume: Path | None = None,
    **data: Any,
) -> TrainingResult:
    """``train_policy`` in ``config.workers`` processes; see there, also for ``data``.

    ``start``, ``out``, ``resume`` and the frame cache must be the same files on every machine. Images that
    are in no file are written below ``out`` for that time. A lost process is replaced, and all go on from
    ``resume``. Raises ``InputError`` also where there are too few cores or GPUs, and ``Failure`` where
    processes are lost again and again.
    """
    from workflows.policy_training import TrainingResult

    out = out.absolute()
    frames = out / _FRAMES
    told = None if progress is None else _with_numbers(progress)
    try:
        options = {**data, "resume": resume and resume.absolute()}
        said = train_together(
            _train_share,
            (table.in_files(frames), indicators, config, start and start.absolute(), out, options),
            workers=config.workers,
            device=config.device,
            out=out,
            what="a policy",
            progress=told,
        )
    finally:
        shutil.rmtree(frames, ignore_errors=True)
    curve = [(step, loss) for step, loss in said["loss_curve"]]
    return TrainingResult(**{**said, "checkpoint": out, "loss_curve": curve})


def _with_numbers(progress: Progress) -> Told:
    """Progress whose message is the loss, as text."""
    return lambda done, total, loss: progress(done, total, float(loss))


def _train_share(
    device: str,
    table: FrameTable,
    indicators: np.ndarray,
    config: PolicyTrainingConfig,
    start: Path | None,
    out: Path,
    options: dict[str, Any],
    progress: Told | None,
) -> dict[str, Any]:
    """What each of the processes does: the result's fields."""
    from pipeline.process_group import ProcessGroup
    from workflows.policy_training import train_policy

    result = train_policy(
        table,
        indicators,
        replace(config, device=device),
        start,
        out,
        progress and (lambda step, total, loss: progress(step, total, repr(loss))),
        group=ProcessGroup(),
        **options,
    )
    return {**asdict(result), "checkpoint": str(out)}
