"""What all steps that train a policy share: which frames they learn from, and the training itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workflows.snapshot_table import snapshot_outcomes
from workflows.step_files import CHECKPOINT
from workflows.step_resume import resume_path

if TYPE_CHECKING:
    from pipeline.frame_table import FrameTable
    from pipeline.label_snapshot import SnapshotRow


def labelled_frames(table: FrameTable, rows: Sequence[SnapshotRow]) -> np.ndarray:
    """(N,) bool: the frames of episodes that have an outcome to learn from, as in the conditioned dataset.

    An episode that nobody labelled may be a failure: fine-tunes wait for people, as values do.
    """
    outcomes = snapshot_outcomes(rows)
    usable = np.array([outcomes[episode_id] is not None for episode_id in table.episode_ids], dtype=bool)
    return usable[table.episode_index]


def train_into(
    out: Path,
    table: FrameTable,
    indicators: np.ndarray,
    training: dict[str, Any],
    start: Path | None,
    mask: np.ndarray | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Trains into the step's folder ``out``, from the checkpoint in ``start`` if any; the step's result.

    ``training`` are fields of ``PolicyTrainingConfig``; the others are as in ``train_policy``.
    """
    from workflows.policy_training import PolicyTrainingConfig, train_policy
    from workflows.value_steps import step_key

    result = train_policy(
        table,
        indicators,
        PolicyTrainingConfig(**training),
        start,
        out / CHECKPOINT,
        frame_mask=mask,
        progress=lambda step, total, _: progress(step, total),
        # The store removes it when the step is published.
        resume=resume_path(out.parent.parent, step_key(out)),
    )
    return {"final_loss": result.final_loss, "frames": result.frames, "samples_per_s": result.samples_per_s}
