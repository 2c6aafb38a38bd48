"""One value model in training: batches, loss, optimiser, and the best weights so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.augmentation import random_shift
from value_model.bins import ValueBins
from value_model.inputs import check_table, episode_tokens
from value_model.network import SmallValueNetwork
from value_model.returns import Outcomes, frame_returns, task_scales
from value_model.training_config import ValueTrainingConfig

# Called with (steps done, steps in all) now and then, and with (all, all) at the end.
Progress = Callable[[int, int], None]


@dataclass
class BestWeights:
    """The weights with the lowest validation loss so far, and how long ago that was."""

    step: int = 0
    train_loss: float = float("nan")
    validation_loss: float | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    evaluations_since: int = 0


class Trainer:
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

    def run(self, progress: Progress | None) -> tuple[BestWeights, int]:
        """Trains until the steps are used up or nothing improves; the best weights and the steps done."""
        config, best, step = self.config, BestWeights(), 0
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
    def _evaluate(self, best: BestWeights, step: int, train_loss: float) -> None:
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


def _frames_of(table: FrameTable, episode_ids: list[str]) -> np.ndarray:
    wanted = set(episode_ids)
    member = np.array([episode_id in wanted for episode_id in table.episode_ids], dtype=bool)
    return np.flatnonzero(member[table.episode_index])


def _schedule(step: int, config: ValueTrainingConfig) -> float:
    """The learning rate at ``step`` (from 1) as a share of its peak."""
    warmup = min(1.0, step / max(1, config.warmup_steps))
    return warmup * 0.5 * (1 + np.cos(np.pi * min(1.0, (step - 1) / config.steps)))
