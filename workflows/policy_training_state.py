"""What tells one policy training from another, and keeping its state while it runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from pipeline.frame_subtasks import FrameSubtasks
from pipeline.frame_table import FrameTable
from pipeline.resume_state import Keeper, load_state, save_state
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.policy_training_loop import PolicyTrainer

# Of what a trainer's state holds: one of another make is not used.
_MAKE = 2
# Frames whose images are hashed to tell one data set from another.
_IMAGES_HASHED = 64
# Of each file of the checkpoint that a training starts from: enough to tell it, also where it is large.
_BYTES_HASHED = 2**20


class KeptTraining:
    """The file of one training's state: continues from it where it fits, and keeps it up to date."""

    def __init__(
        self, path: Path | None, trainer: PolicyTrainer, fingerprint: str, keeper: Keeper | None = None
    ) -> None:
        """``path`` ``None`` keeps nothing; ``keeper`` says when, by default every few seconds."""
        self._path, self._trainer, self._fingerprint = path, trainer, fingerprint
        self._keeper = keeper or Keeper()

    def restore(self) -> int:
        """Takes the trainer to where the kept state is; the steps that it had done, 0 without one."""
        found = load_state(self._path, self._fingerprint) if self._path is not None else None
        if found is not None:
            self._trainer.restore(found)
        return self._trainer.step

    def after_step(self) -> None:
        """Keeps the state where it is time to."""
        path = self._path
        if path is not None and self._keeper.is_due:
            self._keeper.keep(lambda: save_state(path, self._trainer.state(), self._fingerprint))


def policy_fingerprint(
    table: FrameTable,
    indicators: np.ndarray,
    frame_mask: np.ndarray | None,
    config: PolicyTrainingConfig,
    start: Path | None,
    subtasks: FrameSubtasks | None = None,
) -> str:
    """SHA-256 over what decides a training: settings, frames, indicators, mask, sub-tasks, the start's files.

    Of the images, a few spread over the table; of each file of the start its name, size, beginning and end.
    """
    said = [_MAKE, config.as_json(), table.episode_ids, table.contents, table.tasks, table.cameras]
    hasher = hashlib.sha256(json.dumps([*said, torch.__version__], sort_keys=True, default=str).encode())
    some = np.unique(np.linspace(0, len(table) - 1, _IMAGES_HASHED).astype(np.int64))
    mask = np.ones(len(table), dtype=bool) if frame_mask is None else frame_mask
    for array in (table.lengths, table.state, table.action, indicators, mask, table.images(some)):
        hasher.update(np.ascontiguousarray(array).tobytes())
    if subtasks is not None:
        hasher.update(json.dumps(subtasks.names).encode() + subtasks.codes.tobytes())
    for path in sorted(start.iterdir()) if start is not None else ():
        if path.is_file():
            hasher.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            hasher.update(_ends(path))
    return hasher.hexdigest()


def _ends(path: Path) -> bytes:
    """The first and the last of a file's bytes; all of it where it is small."""
    with path.open("rb") as stream:
        first = stream.read(_BYTES_HASHED)
        stream.seek(max(stream.tell(), path.stat().st_size - _BYTES_HASHED))
        return first + stream.read()
