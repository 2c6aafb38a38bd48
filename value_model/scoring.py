"""Values for every frame, each from models that never saw the frame's episode.

An episode with an outcome is scored by the models of the fold that held it out; one without an
outcome, or recorded after training, by all of them. What counts is the list of seen episodes in each
model's own record, so that a mix-up of folds cannot leak. Every frame gets a value, corrections by a
person included: they are the V(o_{t+N}) of the frames before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.bins import ValueBins
from value_model.checkpoint import load_network, read_record
from value_model.inputs import check_table, episode_tokens
from value_model.network import SmallValueNetwork
from value_model.trainer import Progress
from value_model.training_config import ValueTrainingConfig

# (fold, member, folder written by ``train_fold``)
FoldCheckpoint = tuple[int, int, Path]

_SCORING_BATCH = 256


def score(
    table: FrameTable,
    checkpoints: Sequence[FoldCheckpoint],
    config: ValueTrainingConfig,
    progress: Progress | None = None,
) -> np.ndarray:
    """The value of every frame, float32 ``(N,)`` in [−1, 0]: the mean over the models allowed to score it.

    Raises ``InputError`` when a checkpoint is missing, is not the fold and member it is said to be,
    or when an episode was seen by every model.
    """
    _check_complete(checkpoints, config)
    total = np.zeros(len(table.episode_index), dtype=np.float64)
    count = np.zeros(len(table.episode_index), dtype=np.int64)
    for done, (fold, member, path) in enumerate(checkpoints):
        record = read_record(path)
        if (record.fold, record.member) != (fold, member):
            raise InputError(
                f"{path} holds fold {record.fold}, member {record.member}, not fold {fold}, member {member}"
            )
        check_table(table, record.network)
        seen = set(record.seen)
        unseen = np.array([episode_id not in seen for episode_id in table.episode_ids], dtype=bool)
        frames = np.flatnonzero(unseen[table.episode_index])
        total[frames] += predict(load_network(path, record, config.device), table, frames, config.device)
        count[frames] += 1
        if progress is not None:
            progress(done + 1, len(checkpoints))
    if not count.all():
        episode = table.episode_ids[int(table.episode_index[int(np.argmin(count))])]
        raise InputError(f"episode {episode} was seen by every value model: score it with all folds' models")
    return (total / count).astype(np.float32)


@torch.inference_mode()
def predict(
    network: SmallValueNetwork, table: FrameTable, frames: np.ndarray, device: str = "cpu"
) -> np.ndarray:
    """One network's values of the given frames, float32 ``(len(frames),)``; it may have seen them."""
    bins = ValueBins(network.config.bins)
    tokens = episode_tokens(table, network.config)
    values = np.empty(len(frames), dtype=np.float32)
    for start in range(0, len(frames), _SCORING_BATCH):
        part = frames[start : start + _SCORING_BATCH]
        logits = network(
            torch.as_tensor(table.images(part)).to(device),
            torch.as_tensor(table.state[part]).to(device),
            tokens[table.episode_index[part]].to(device),
        )
        values[start : start + len(part)] = bins.expectation(logits).cpu().numpy()
    if not np.isfinite(values).all():
        raise InputError("the value model gives values that are not finite: look for NaN in the states")
    return values


def _check_complete(checkpoints: Sequence[FoldCheckpoint], config: ValueTrainingConfig) -> None:
    given = sorted((fold, member) for fold, member, _ in checkpoints)
    wanted = [(fold, member) for fold in range(config.folds) for member in range(config.members)]
    if given != wanted:
        raise InputError(
            f"value models for (fold, member) {given}, but {wanted} are needed: train the others"
        )
