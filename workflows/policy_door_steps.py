"""The durable steps of ``recap policy train``, as plain functions: any LeRobot policy on conditioned data.

Each reads finished inputs and writes a checkpoint into ``out``, repeatably; one that was killed goes on from
the state that it kept. ``option_folders`` are folders that the policy's options name: inputs, so that what is
in them counts. Heavy libraries are imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workflows.array_files import read_arrays
from workflows.step_files import ADVANTAGES_FILE, CHECKPOINT
from workflows.step_resume import resume_path

if TYPE_CHECKING:
    from pipeline.frame_table import FrameTable

Progress = Callable[[int, int], None]


def train_on_advantages(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    advantages: Path,
    image_size: int,
    training: dict[str, Any],
    progress: Progress,
    start: Path | None = None,
    option_folders: Sequence[Path] = (),
) -> dict[str, Any]:
    """Trains on the frames of all labelled episodes under the indicators of the advantages."""
    from workflows.loop_steps import labelled_frames
    from workflows.snapshot_table import snapshot_table

    table, rows = snapshot_table(workspace, snapshot, image_size)
    stored = read_arrays(advantages / ADVANTAGES_FILE)
    if stored["episode_ids"].tolist() != table.episode_ids:
        from pipeline.errors import InputError

        raise InputError(f"{advantages} is of other episodes than {snapshot}: run 'recap advantages' again")
    return _train(out, table, stored["indicator"], training, start, progress, labelled_frames(table, rows))


def train_on_dataset(
    out: Path,
    *,
    dataset: Path,
    image_size: int,
    training: dict[str, Any],
    progress: Progress,
    start: Path | None = None,
    option_folders: Sequence[Path] = (),
) -> dict[str, Any]:
    """Trains on a LeRobotDataset whose prompts hold the indicators, such as a conditioned view."""
    from pipeline.exchange.dataset_table import dataset_table

    table, indicators = dataset_table(dataset, image_size)
    return _train(out, table, indicators, training, start, progress)


def _train(
    out: Path,
    table: FrameTable,
    indicators: np.ndarray,
    training: dict[str, Any],
    start: Path | None,
    progress: Progress,
    mask: np.ndarray | None = None,
) -> dict[str, Any]:
    from pipeline.policy.new_policy import ALLOW_DOWNLOAD, PATH, fits, table_facts
    from workflows.policy_training import PolicyTrainingConfig, train_policy
    from workflows.value_steps import step_key

    options = training["policy_options"]
    if start is not None and fits(start, table_facts(table)):
        # A whole checkpoint: nothing is there to be fetched.
        options = {name: value for name, value in options.items() if name != ALLOW_DOWNLOAD}
    elif start is not None:
        # Somebody else's weights: new features and statistics around them.
        options = {**options, PATH: str(start)}
        start = None
    result = train_policy(
        table,
        indicators,
        PolicyTrainingConfig(**{**training, "policy_options": options}),
        start,
        out / CHECKPOINT,
        frame_mask=mask,
        progress=lambda step, total, _: progress(step, total),
        # The store removes it when the step is published.
        resume=resume_path(out.parent.parent, step_key(out)),
    )
    return {"final_loss": result.final_loss, "frames": result.frames, "samples_per_s": result.samples_per_s}
