"""Trains one value model of a cross-fitted ensemble: cross-entropy on normalised Monte-Carlo returns.

``train_fold`` is one job: it reads frames and outcomes, leaves the episodes of its fold alone, and
writes one folder. The ``folds x members`` jobs know nothing of each other and may run anywhere, in
any order; with equal inputs and one thread a job gives equal weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.augmentation import random_shift
from value_model.bins import ValueBins
from value_model.checkpoint import ModelRecord, save_checkpoint
from value_model.folds import assign_folds, split_validation
from value_model.network import SmallValueNetwork, ValueNetworkConfig, tokenize
from value_model.returns import Outcomes, frame_returns, task_scales

# Called with (steps done, steps in all) now and then, and with (all, all) at the end.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ValueTrainingConfig:
    """How the ensemble is trained.

    folds: parts that the episodes are dealt into; each model is blind to one. members: models a fold.
    steps, batch_size: optimiser steps at most, and frames in each. learning_rate: its peak, after
    ``warmup_steps``; it then falls to zero along a cosine. weight_decay: AdamW's. average: decay of
    the running mean of the weights, which is what is kept. target: how a return becomes a
    distribution over bins, and ``target_deviation`` how wide an HL-Gauss target is, in bins.
    failure_penalty: C_fail as a fraction of the task's longest episode. shift: the images are moved
    by up to so many pixels in training. state_noise: standard deviation of the noise on the
    normalised state in training. validation_share: share of a model's episodes that are kept to stop
    it; it stops after ``patience`` evaluations, ``evaluate_every`` steps apart, that bring nothing.
    seed: of folds, weights and batches. device: torch's name for it.
    """

    network: ValueNetworkConfig = field(default_factory=ValueNetworkConfig)
    folds: int = 2
    members: int = 2
    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 5e-4
    warmup_steps: int = 25
    weight_decay: float = 0.3
    average: float = 0.98
    target: Literal["two_hot", "hl_gauss"] = "hl_gauss"
    target_deviation: float = 2.0
    failure_penalty: float = 1.0
    shift: int = 4
    state_noise: float = 0.1
    validation_share: float = 0.15
    evaluate_every: int = 50
    patience: int = 4
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch_size, self.evaluate_every, self.patience, self.members)
        if (
            min(counts) < 1
            or self.batch_size < 2
            or self.folds < 2
            or self.warmup_steps < 0
            or self.shift < 0
        ):
            raise InputError("value training: counts must be positive, and there must be 2 folds or more")
        if (
            min(self.learning_rate, self.target_deviation) <= 0
            or min(self.weight_decay, self.state_noise) < 0
        ):
            raise InputError(
                "value training: learning_rate and target_deviation must be positive, weight_decay and "
                "state_noise not negative"
            )
        if not (0 <= self.average < 1 and 0 <= self.validation_share <= 0.5):
            raise InputError("value training: average must be in [0, 1), validation_share in [0, 0.5]")
        if self.target not in ("two_hot", "hl_gauss"):
            raise InputError(f"value training: target {self.target!r} is neither two_hot nor hl_gauss")


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


@dataclass
class _Best:
    """The weights with the lowest validation loss so far, and how long ago that was."""

    step: int = 0
    train_loss: float = float("nan")
    validation_loss: float | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    evaluations_since: int = 0


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
        trainer = _Trainer(
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


class _Trainer:
    """One model in training: its data, its optimiser and the best it has been."""

    def __init__(
        self,
        table: FrameTable,
        outcomes: Outcomes,
        config: ValueTrainingConfig,
        trained: list[str],
        held: list[str],
        rng: np.random.Generator,
    ) -> None:
        self.table, self.config, self.rng = table, config, rng
        self.bins = ValueBins(config.network.bins)
        self.returns = frame_returns(table, outcomes, task_scales(table, outcomes, config.failure_penalty))
        self.tokens = episode_tokens(table, config.network)
        self.train_frames = _frames_of(table, trained)
        # Neighbouring frames are nearly the same picture: a thousand are as good as all of them.
        held_frames = _frames_of(table, held)
        self.held_frames = held_frames[:: max(1, len(held_frames) // 1000)]
        check_table(table, config.network)
        self.network = SmallValueNetwork(config.network).to(config.device)
        if config.network.state_size:
            state = torch.as_tensor(table.state[self.train_frames])
            self.network.state_mean.copy_(state.mean(0))
            self.network.state_scale.copy_(state.std(0).clamp(min=1e-2))
        self.average = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.average)
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def run(self, progress: Progress | None) -> tuple[_Best, int]:
        """Trains until the steps are used up or nothing improves; the best weights and the steps done."""
        config, best, step = self.config, _Best(), 0
        losses: list[float] = []
        for step in range(1, config.steps + 1):
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * _schedule(step, config)
            losses.append(self._step())
            if step % config.evaluate_every and step != config.steps:
                continue
            if progress is not None:
                progress(step, config.steps)
            self._evaluate(best, step, float(np.mean(losses)))
            losses.clear()
            if best.evaluations_since >= config.patience:
                break
        if progress is not None:
            progress(config.steps, config.steps)
        return best, step

    def _step(self) -> float:
        frames = self.rng.choice(self.train_frames, self.config.batch_size)
        images = random_shift(self.table.images(frames), self.config.shift, self.rng)
        state = torch.as_tensor(self.table.state[frames])
        if self.config.state_noise and self.config.network.state_size:
            noise = torch.as_tensor(self.rng.standard_normal(state.shape, dtype=np.float32))
            state = state + self.config.state_noise * noise * self.network.state_scale.cpu()
        loss = self._loss(self.network, frames, images, state)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        if not torch.isfinite(loss):
            raise InputError(
                "the value model's loss is not finite: lower learning_rate, or look for NaN in states"
            )
        return float(loss.detach())

    def _loss(
        self, network: torch.nn.Module, frames: np.ndarray, images: np.ndarray, state: Tensor
    ) -> Tensor:
        device = self.config.device
        values = torch.as_tensor(self.returns[frames])
        if self.config.target == "two_hot":
            targets = self.bins.two_hot(values)
        else:
            targets = self.bins.hl_gauss(values, self.config.target_deviation)
        tokens = self.tokens[self.table.episode_index[frames]]
        logits = network(torch.as_tensor(images).to(device), state.to(device), tokens.to(device))
        return functional.cross_entropy(logits, targets.to(device))

    @torch.no_grad()
    def _evaluate(self, best: _Best, step: int, train_loss: float) -> None:
        """Updates ``best`` by the averaged weights; without validation episodes the latest are the best."""
        loss = None
        if len(self.held_frames):
            self.average.eval()
            loss = 0.0
            for frames in np.array_split(self.held_frames, -(-len(self.held_frames) // 256)):
                state = torch.as_tensor(self.table.state[frames])
                part = self._loss(self.average, frames, self.table.images(frames), state)
                loss += float(part) * len(frames) / len(self.held_frames)
            if best.validation_loss is not None and loss >= best.validation_loss:
                best.evaluations_since += 1
                return
        best.step, best.train_loss, best.validation_loss, best.evaluations_since = step, train_loss, loss, 0
        best.weights = {k: v.detach().clone() for k, v in self.average.module.state_dict().items()}


def episode_tokens(table: FrameTable, config: ValueNetworkConfig) -> Tensor:
    """The task tokens of each of the table's episodes, int64 ``(episodes, words)``."""
    return torch.tensor([tokenize(task, config.vocabulary, config.words) for task in table.tasks])


def check_table(table: FrameTable, config: ValueNetworkConfig) -> None:
    """Raises ``InputError`` unless the table's images and states have the shapes of the network's inputs."""
    images = table.images(np.array([0])).shape
    wanted = (1, config.cameras, config.image_size, config.image_size, 3)
    if images != wanted:
        raise InputError(f"frames have images of shape {images[1:]}, the value network takes {wanted[1:]}")
    if config.state_size and table.state.shape[1] != config.state_size:
        raise InputError(
            f"frames have {table.state.shape[1]} state values, the value network takes {config.state_size}"
        )


def _frames_of(table: FrameTable, episode_ids: list[str]) -> np.ndarray:
    wanted = set(episode_ids)
    member = np.array([episode_id in wanted for episode_id in table.episode_ids], dtype=bool)
    return np.flatnonzero(member[table.episode_index])


def _schedule(step: int, config: ValueTrainingConfig) -> float:
    """The learning rate at ``step`` (from 1) as a share of its peak."""
    warmup = min(1.0, step / max(1, config.warmup_steps))
    return warmup * 0.5 * (1 + np.cos(np.pi * min(1.0, (step - 1) / config.steps)))
