"""Trains a policy on a table of frames: from scratch, or further from a checkpoint.

Reads frames and indicators, writes an ordinary LeRobot checkpoint and ``training.json`` (settings and
loss curve). Every run is a plain loop, in one process or in each of several
(:mod:`workflows.policy_training_group`), reproducible from its seed and number of threads, also where it
was killed and goes on from its resume file. The output folder is filled in place: whoever needs
it whole or not at all passes a folder set aside.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.frame_subtasks import FrameSubtasks
from pipeline.frame_table import FrameTable
from pipeline.policy.checkpoint import Checkpoint, load_checkpoint
from pipeline.policy.gen3.action_learning import fit_to_table
from pipeline.policy.new_policy import new_checkpoint, table_facts
from pipeline.policy.policy_frames import subtasks_said
from pipeline.policy.training_fields import require_groups
from pipeline.policy.training_statistics import table_statistics
from pipeline.policy.tuning import prepare
from pipeline.process_group import Group
from pipeline.resume_state import Keeper
from workflows.policy_training_batches import PolicyBatches
from workflows.policy_training_config import PolicyTrainingConfig, learning_rate_factor
from workflows.policy_training_group import trainer_in
from workflows.policy_training_loop import Progress
from workflows.policy_training_prefetch import PrefetchedBatches
from workflows.policy_training_state import KeptTraining, policy_fingerprint

__all__ = ["PolicyTrainingConfig", "TrainingResult", "learning_rate_factor", "train_policy"]


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave: ``loss_curve`` holds (step, mean loss since the entry before).

    ``seconds`` and ``samples_per_s`` are those of this run; one that went on from a resume file counts
    from there. ``waiting_share`` is the share of its time in which the network waited for a batch.
    """

    checkpoint: Path
    steps: int
    frames: int
    final_loss: float
    seconds: float
    samples_per_s: float
    loss_curve: list[tuple[int, float]]
    waiting_share: float


def train_policy(
    table: FrameTable,
    indicators: np.ndarray,
    config: PolicyTrainingConfig,
    start: Path | None,
    out: Path,
    progress: Progress | None = None,
    *,
    frame_mask: np.ndarray | None = None,
    resume: Path | None = None,
    keeper: Keeper | None = None,
    subtasks: FrameSubtasks | None = None,
    group: Group | None = None,
) -> TrainingResult:
    """Trains on ``table`` and writes the checkpoint and ``training.json`` into ``out``.

    ``indicators`` (N,) int8, one per frame (see :mod:`pipeline.prompts`). ``start`` is a checkpoint whose
    weights and normalisation statistics are kept, of any LeRobot policy type; ``None`` trains a new
    one of ``config.policy_type``. ``frame_mask`` (N,) bool restricts which frames are drawn, as in filtered
    behaviour cloning. ``progress(step, total, loss)`` is called every few steps. ``subtasks`` of the table's
    frames are learned by a policy that predicts sub-tasks, as far as it has their names; others ignore them.

    ``resume`` is a file in which the training keeps its state every few seconds (``keeper`` says when). A
    training that is begun again with the same one goes on from there, to the very same weights; one of other
    settings or data is not used, which is logged. The file is left: whoever has put the result in its place
    removes it (:func:`pipeline.resume_state.remove_state`).

    ``group`` are the ``config.workers`` processes that train this policy together, each of which calls this
    function; only the first writes, and is told of progress.

    Raises ``InputError`` for arrays that do not fit, no frames, unknown policy options and folders that hold
    no checkpoint.
    """
    if indicators.shape != (len(table),):
        raise InputError(f"there are {len(table)} frames and indicators of shape {indicators.shape}")
    if start is not None and config.policy_options:
        raise InputError("policy options only apply from scratch: a checkpoint's network is fixed")
    require_groups(config.policy_type, config.policy_options, config.lora_rank)
    group = group or Group()
    if group.size != config.workers:
        raise ValueError(f"{config.workers} workers, and {group.size} processes: train_policy is one of them")
    used = np.ones(len(table), dtype=bool) if frame_mask is None else frame_mask
    began = time.perf_counter()
    with _seeded_torch(config):
        model = _model(table, used, config, start)
        model.tell(indicators[used], table.tasks)
        said = subtasks_said(model.policy.config, subtasks)
        rows = group.share(config.batch_size)
        batches = PrefetchedBatches(PolicyBatches(table, indicators, frame_mask, config, model, said, rows))
        trainer = trainer_in(group, model.policy, prepare(model.policy, config), batches, config)
        fingerprint = (
            "" if resume is None else policy_fingerprint(table, indicators, frame_mask, config, start, said)
        )
        kept = KeptTraining(resume, trainer, fingerprint, keeper)
        begun_at = kept.restore()
        with closing(batches):
            trainer.run(progress, kept.after_step)
        if group.rank == 0:
            model.save(out)
    seconds = time.perf_counter() - began
    result = TrainingResult(
        checkpoint=out,
        steps=config.steps,
        frames=int(used.sum()),
        final_loss=trainer.curve[-1][1],
        seconds=seconds,
        samples_per_s=(config.steps - begun_at) * config.batch_size * config.accumulate / seconds,
        loss_curve=trainer.curve,
        waiting_share=trainer.waited_s / seconds,
    )
    if group.rank == 0:
        _write_record(
            result, config, len(table.episode_ids), said and FrameSubtasks(said.names, said.codes[used])
        )
    group.barrier()
    return result


def _write_record(
    result: TrainingResult, config: PolicyTrainingConfig, episodes: int, subtasks: FrameSubtasks | None
) -> None:
    """Writes ``training.json``: only what the same inputs give again, since times would change its hash."""
    record = {
        "config": config.as_json(),
        "episodes": episodes,
        "frames": result.frames,
        "final_loss": result.final_loss,
        "loss_curve": result.loss_curve,
    }
    if subtasks is not None:
        record["subtasks"] = subtasks.counts()
    (result.checkpoint / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def _model(
    table: FrameTable, used: np.ndarray, config: PolicyTrainingConfig, start: Path | None
) -> Checkpoint:
    if start is not None:
        return load_checkpoint(start, config.device)
    facts, stats = table_facts(table), table_statistics(table, used)
    model = new_checkpoint(config.policy_type, facts, stats, config.policy_options, config.device)
    fit_to_table(model, table, used)
    return model


@contextmanager
def _seeded_torch(config: PolicyTrainingConfig) -> Iterator[None]:
    """Within: torch's generators follow from the seed, its threads are the configured ones; after: as before.

    A GPU computes repeatably within.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    on_gpu = torch.device(config.device).type == "cuda"
    index = torch.device(config.device).index
    # Where Ray gave a process one of several GPUs, it is torch's present one.
    devices = [torch.cuda.current_device() if index is None else index] if on_gpu else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        if on_gpu:
            # cuBLAS asks for this; operations that only come in an unrepeatable form warn.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
