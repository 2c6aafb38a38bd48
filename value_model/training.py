"""Trains one value model of a cross-fitted ensemble: cross-entropy on normalised Monte-Carlo returns.

``train_fold`` is one job: it reads frames and outcomes, leaves the episodes of its fold alone, and
writes one folder. The ``folds x members`` jobs know nothing of each other and may run anywhere, in
any order; with equal inputs and one thread a job gives equal weights.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.checkpoint import ModelRecord, save_checkpoint
from value_model.folds import assign_folds, split_validation
from value_model.returns import Outcomes
from value_model.trainer import Progress, Trainer
from value_model.training_config import ValueTrainingConfig

__all__ = ["FoldResult", "Progress", "ValueTrainingConfig", "train_fold"]


@dataclass(frozen=True)
class FoldResult:
    """One finished job: where its model is, what it took and how good it was on its own episodes."""

    fold: int
    member: int
    path: Path
    best_step: int
    steps_done: int
    train_loss: float
    validation_loss: float | None
    seconds: float

    @property
    def best_loss(self) -> float:
        """The cross-entropy (nats) of the kept weights: on held-out episodes, or in training if none are."""
        return self.train_loss if self.validation_loss is None else self.validation_loss


def train_fold(
    table: FrameTable,
    outcomes: Outcomes,
    config: ValueTrainingConfig,
    fold: int,
    member: int,
    out: Path,
    progress: Progress | None = None,
) -> FoldResult:
    """Trains member ``member`` of fold ``fold`` on the episodes outside that fold; writes it to ``out``.

    ``outcomes`` maps episode ids to ``success``, ``failure`` or ``None``; episodes without an outcome
    are not trained on. Raises ``InputError`` when the fold or member does not exist, when too few
    episodes have an outcome, or when the table's frames are not of the configured shape.
    """
    if not (0 <= fold < config.folds and 0 <= member < config.members):
        raise InputError(
            f"fold {fold}, member {member}: there are {config.folds} folds of {config.members} members"
        )
    started = time.monotonic()
    of_episode = assign_folds(table, outcomes, config.folds, config.seed)
    seen = [episode_id for episode_id, f in of_episode.items() if f != fold]
    trained, held = split_validation(
        table, outcomes, seen, config.validation_share, f"validation:{config.seed}:{fold}:{member}"
    )
    # The global generator is torch's only way to seed dropout and fresh weights; it is put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(np.random.SeedSequence([config.seed, fold, member]).generate_state(1)[0].item())
        trainer = Trainer(
            table, outcomes, config, trained, held, np.random.default_rng([config.seed, fold, member])
        )
        best, steps_done = trainer.run(progress)
    trainer.network.load_state_dict(best.weights)
    record = ModelRecord(
        fold,
        member,
        tuple(sorted(seen)),
        config.network,
        asdict(config),
        best.step,
        best.train_loss,
        best.validation_loss,
    )
    save_checkpoint(out, trainer.network, record)
    return FoldResult(
        fold,
        member,
        out,
        best.step,
        steps_done,
        best.train_loss,
        best.validation_loss,
        time.monotonic() - started,
    )
