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

from pipeline.frame_subtasks import FrameSubtasks, labelled_subtasks
from workflows.array_files import read_arrays
from workflows.policy_training_step import labelled_frames, preloads, train_into
from workflows.step_files import ADVANTAGES_FILE

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
    from workflows.snapshot_table import snapshot_table

    table, rows = snapshot_table(workspace, snapshot, image_size, preload=preloads(training))
    stored = read_arrays(advantages / ADVANTAGES_FILE)
    if stored["episode_ids"].tolist() != table.episode_ids:
        from pipeline.errors import InputError

        raise InputError(f"{advantages} is of other episodes than {snapshot}: run 'recap advantages' again")
    mask, subtasks = labelled_frames(table, rows), labelled_subtasks(table, rows)
    return _train(out, table, stored["indicator"], training, start, progress, mask, subtasks)


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
    subtasks: FrameSubtasks | None = None,
) -> dict[str, Any]:
    from pipeline.policy.new_policy import ALLOW_DOWNLOAD, PATH, fits, table_facts

    options = training["policy_options"]
    if start is not None and fits(start, table_facts(table)):
        # A whole checkpoint: nothing is there to be fetched.
        options = {name: value for name, value in options.items() if name != ALLOW_DOWNLOAD}
    elif start is not None:
        # Somebody else's weights: new features and statistics around them.
        options = {**options, PATH: str(start)}
        start = None
    training = {**training, "policy_options": options}
    return train_into(out, table, indicators, training, start, mask, progress, subtasks)
