"""Trains one value model of a cross-fitted ensemble: cross-entropy on normalised Monte-Carlo returns.

``train_fold`` is one job: it reads frames and outcomes, leaves the episodes of its fold alone, and
writes one folder. The ``folds x members`` jobs know nothing of each other and may run anywhere, in
any order; with equal inputs and one thread a job gives equal weights, also one that was killed and
went on from its resume file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.process_group import seed_of
from pipeline.resume_state import Keeper, load_state, save_state
from value_model.checkpoint import ModelRecord, save_checkpoint
from value_model.folds import assign_folds, split_validation
from value_model.returns import Outcomes, frame_returns, task_scales
from value_model.trainer import Progress, Trainer
from value_model.training_config import ValueTrainingConfig
from value_model.training_curves import CURVES_NAME, Curves, JsonLinesCurves
from value_model.training_group import Group
from value_model.training_state import training_fingerprint

__all__ = ["FoldResult", "Progress", "ValueTrainingConfig", "train_fold"]


@dataclass(frozen=True)
class FoldResult:
    """One finished job: where its model is, what it took and how good it was on its own episodes.

    ``seconds`` are those of this run; one that went on from a resume file counts from there.
    """

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
    *,
    resume: Path | None = None,
    curves: Curves | None = None,
    group: Group | None = None,
    keeper: Keeper | None = None,
) -> FoldResult:
    """Trains member ``member`` of fold ``fold`` on the episodes outside that fold; writes it to ``out``.

    ``outcomes`` maps episode ids to ``success``, ``failure`` or ``None``; episodes without an outcome
    are not trained on. ``out`` gets the model and ``curves.jsonl``; ``curves`` gets the same numbers, and
    the speed. ``resume`` is a file that is written at every evaluation (by one process alone also every few
    seconds between them, ``keeper`` says when): a job that is begun again with the same one goes on from
    there. One of other settings or data is not used, which is logged; whoever has put the result in its place
    removes it (:func:`pipeline.resume_state.remove_state`). ``group`` are the processes that train
    this model together, each of which calls this function; only the first writes. Raises ``InputError`` when
    the fold or member does not exist, when too few episodes have an outcome, or when the table's frames are
    not of the configured shape.
    """
    group = group or Group()
    if not (0 <= fold < config.folds and 0 <= member < config.members):
        raise InputError(
            f"fold {fold}, member {member}: there are {config.folds} folds of {config.members} members"
        )
    if config.batch_size < group.size:
        raise InputError(f"batches of {config.batch_size} frames are too small for {group.size} processes")
    started = time.monotonic()
    of_episode = assign_folds(table, outcomes, config.folds, config.seed)
    seen = [episode_id for episode_id, f in of_episode.items() if f != fold]
    trained, held = split_validation(
        table, outcomes, seen, config.validation_share, f"validation:{config.seed}:{fold}:{member}"
    )
    scales = task_scales(table, outcomes, config.failure_penalty)
    returns = frame_returns(table, outcomes, scales)
    with _seeded(config, fold, member):
        rng = np.random.default_rng([config.seed, fold, member])
        trainer = Trainer(table, returns, config, trained, held, rng, group)
        fingerprint = training_fingerprint(table, returns, config, (fold, member), (trained, held))
        _run(trainer, (fold, member), out, resume, fingerprint, curves, progress, keeper or Keeper())
    best = trainer.best
    if group.rank == 0:
        trainer.network.load_trained_state(best.weights)
        record = ModelRecord(
            fold,
            member,
            tuple(sorted(seen)),
            config.network,
            config.to_parameters(),
            best.step,
            best.train_loss,
            best.validation_loss,
            seen_contents=_contents_of(table, seen),
            # Of all labelled episodes, not of those seen: the same for every model of an ensemble.
            scales=scales,
        )
        save_checkpoint(out, trainer.network, record)
    group.barrier()
    return FoldResult(
        fold,
        member,
        out,
        best.step,
        trainer.step,
        best.train_loss,
        best.validation_loss,
        time.monotonic() - started,
    )


def _contents_of(table: FrameTable, episode_ids: list[str]) -> tuple[str, ...]:
    """The content keys of these episodes, sorted, each once."""
    content = dict(zip(table.episode_ids, table.contents, strict=True))
    return tuple(sorted({content[episode_id] for episode_id in episode_ids}))


def _run(
    trainer: Trainer,
    job: tuple[int, int],
    out: Path,
    resume: Path | None,
    fingerprint: str,
    curves: Curves | None,
    progress: Progress | None,
    keeper: Keeper,
) -> None:
    """Trains, from ``resume`` where it is of this training; keeps it and the curves up to date."""
    group = trainer.group
    found = load_state(resume, fingerprint) if resume is not None else None
    if found is not None:
        trainer.restore(found)
    _draw_apart(trainer, job)
    kept = resume if group.rank == 0 else None
    # The others need no file: what they would write is what the first writes.
    path = out / CURVES_NAME if group.rank == 0 else Path(os.devnull)
    with JsonLinesCurves(path, trainer.points) as lines:
        told = len(trainer.points)

        def evaluated() -> None:
            nonlocal told
            for name, step, value in trainer.points[told:]:
                lines.scalar(name, step, value)
                if curves is not None and group.rank == 0:
                    curves.scalar(name, step, value)
            told = len(trainer.points)
            if curves is not None and group.rank == 0:
                # Not into the file, which equal inputs give again to the last byte.
                curves.scalar("frames_per_s", trainer.step, trainer.frames_per_s)
            keep()
            _draw_apart(trainer, job)

        def keep() -> None:
            if kept is not None:
                keeper.keep(lambda: save_state(kept, trainer.state(), fingerprint))

        def between() -> None:
            # Of several processes each draws its own dropout, which the state of the first does not have.
            if group.size == 1 and keeper.is_due:
                keep()

        trainer.run(progress if group.rank == 0 else None, evaluated, between)


def _draw_apart(trainer: Trainer, job: tuple[int, int]) -> None:
    """Has each of several processes draw its own dropout, in a way that a resumed training repeats."""
    if trainer.group.size > 1:
        torch.manual_seed(seed_of(trainer.config.seed, *job, trainer.step, trainer.group.rank))


@contextmanager
def _seeded(config: ValueTrainingConfig, fold: int, member: int) -> Iterator[None]:
    """Within: torch's global generators follow from the seed, and a GPU computes repeatably.

    The global generators are torch's only way to seed dropout and fresh weights; they are put back.
    """
    on_gpu = torch.device(config.device).type == "cuda"
    devices = [torch.device(config.device).index or 0] if on_gpu else []
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed_of(config.seed, fold, member))
        if not on_gpu:
            yield
            return
        # cuBLAS asks for this; operations that only come in an unrepeatable form warn.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
