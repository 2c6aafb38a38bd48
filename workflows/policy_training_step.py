"""What all steps that train a policy share: which frames they learn from, and the training itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workflows.snapshot_table import snapshot_outcomes
from workflows.step_files import CHECKPOINT
from workflows.step_resume import resume_path

if TYPE_CHECKING:
    from pipeline.frame_subtasks import FrameSubtasks
    from pipeline.frame_table import FrameTable
    from pipeline.label_snapshot import SnapshotRow


def labelled_frames(table: FrameTable, rows: Sequence[SnapshotRow]) -> np.ndarray:
    """(N,) bool: the frames of episodes that have an outcome to learn from, as in the conditioned dataset.

    An episode that nobody labelled may be a failure: fine-tunes wait for people, as values do.
    """
    outcomes = snapshot_outcomes(rows)
    usable = np.array([outcomes[episode_id] is not None for episode_id in table.episode_ids], dtype=bool)
    return usable[table.episode_index]


def preloads(training: Mapping[str, Any]) -> bool:
    """Whether the step's own process reads the images: several that train together map them again."""
    return int(training.get("workers", 1)) == 1


def train_into(
    out: Path,
    table: FrameTable,
    indicators: np.ndarray,
    training: dict[str, Any],
    start: Path | None,
    mask: np.ndarray | None,
    progress: Callable[[int, int], None],
    subtasks: FrameSubtasks | None = None,
) -> dict[str, Any]:
    """Trains into the step's folder ``out``, from the checkpoint in ``start`` if any; the step's result.

    ``training`` are fields of ``PolicyTrainingConfig``, the number of processes among them; the others are as
    in ``train_policy``.
    """
    from workflows.policy_training import PolicyTrainingConfig, train_policy
    from workflows.policy_training_group_start import train_policy_together
    from workflows.value_steps import step_key

    config = PolicyTrainingConfig(**training)
    result = (train_policy if config.workers == 1 else train_policy_together)(
        table,
        indicators,
        config,
        start,
        out / CHECKPOINT,
        frame_mask=mask,
        subtasks=subtasks,
        progress=lambda step, total, _: progress(step, total),
        # The store removes it when the step is published.
        resume=resume_path(out.parent.parent, step_key(out)),
    )
    return {"final_loss": result.final_loss, "frames": result.frames, "samples_per_s": result.samples_per_s}
