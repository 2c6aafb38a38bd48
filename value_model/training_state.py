"""What tells one value training from another: a state that was kept serves only the training it is of."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch

from pipeline.frame_table import FrameTable
from value_model.training_config import ValueTrainingConfig

# Frames whose images are hashed to tell one data set from another.
_IMAGES_HASHED = 64


def training_fingerprint(
    table: FrameTable,
    returns: np.ndarray,
    config: ValueTrainingConfig,
    job: tuple[int, int],
    episodes: tuple[list[str], list[str]],
) -> str:
    """SHA-256 over what decides a training: settings, fold and member, episodes, returns, states, images.

    ``job`` is (fold, member), ``episodes`` those trained on and those held out. Of the images, a few
    spread over the table: a data set with the same episodes, states and returns does not differ in one.
    """
    said = [config.to_parameters(), list(job), *episodes, table.episode_ids, table.tasks, torch.__version__]
    hasher = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    some = np.unique(np.linspace(0, len(returns) - 1, _IMAGES_HASHED).astype(np.int64))
    for array in (table.lengths, returns, table.state, table.images(some)):
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()
