"""One value model in training: batches, loss, optimiser, and the best weights so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.resume_state import ResumeState
from value_model.bins import ValueBins
from value_model.inputs import check_table, episode_tokens
from value_model.network import build_network
from value_model.training_batches import Batch, TrainingBatches
from value_model.training_config import ValueTrainingConfig
from value_model.training_curves import Point
from value_model.training_group import Group

# Called with (steps done, steps in all) now and then, and with (all, all) at the end.
Progress = Callable[[int, int], None]


@dataclass
class BestWeights:
    """The weights with the lowest validation loss so far, and how long ago that was."""

    step: int = 0
    train_loss: float = float("nan")
    validation_loss: float | None = None
    evaluations_since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Trainer:
    """One model in training: its data, its optimiser, the running mean of its weights, its best."""

    def __init__(
        self,
        table: FrameTable,
        returns: np.ndarray,
        config: ValueTrainingConfig,
        trained: list[str],
        held: list[str],
        rng: np.random.Generator,
        group: Group,
    ) -> None:
        """``returns`` (N,) float32 are the frames'; ``trained`` and ``held`` the episodes' ids.

        Builds the network from torch's global generator. Raises ``InputError`` where the table's frames
        are not of the network's shape, or where nothing of the network is trained.
        """
        check_table(table, config.network)
        self.table, self.config, self.group = table, config, group
        self.bins = ValueBins(config.network.bins)
        self.returns = torch.as_tensor(returns)
        self.network = build_network(config.network).to(config.device)
        self.tokens = episode_tokens(table, self.network)
        train_frames = _frames_of(table, trained)
        # Neighbouring frames are nearly the same picture: a thousand are as good as all of them.
        held_frames = _frames_of(table, held)
        self.held_frames = held_frames[:: max(1, len(held_frames) // 1000)]
        self.network.fit_inputs(torch.as_tensor(table.state[train_frames]))
        self.network.train()
        self.parameters: list[Tensor] = [p for p in self.network.parameters() if p.requires_grad]
        if not self.parameters:
            raise InputError("the value network has nothing to train")
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        scale = self.network.state_scale
        self.batches = TrainingBatches(table, train_frames, config, scale, rng, group)
        self.best, self.step = BestWeights(), 0
        self.points: list[Point] = []
        # Not among the points: those are the same in every run.
        self.frames_per_s = 0.0
        self._wrapped = group.wrap(self.network)
        self._losses: list[Tensor] = []
        self._began, self._begun_at = time.monotonic(), 0

    @property
    def finished(self) -> bool:
        """Whether the steps are used up, or nothing improves any more."""
        return self.step >= self.config.steps or self.best.evaluations_since >= self.config.patience

    def run(
        self,
        progress: Progress | None,
        evaluated: Callable[[], None],
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Trains until finished; calls ``evaluated`` after each evaluation, ``between`` after the others."""
        config = self.config
        try:
            while not self.finished:
                self.step += 1
                rate = config.learning_rate * _schedule(self.step, config)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self._losses.append(self._take_step(self.batches.draw()))
                if self.step % config.evaluate_every and self.step != config.steps:
                    between()
                    continue
                if progress is not None:
                    progress(self.step, config.steps)
                self._evaluate(rate)
                evaluated()
        finally:
            self.batches.close()
        if progress is not None:
            progress(config.steps, config.steps)

    def state(self) -> ResumeState:
        """All that it takes to go on from here."""
        state = ResumeState()
        state.put("network", self.network.trained_state())
        state.put("best", self.best.weights)
        state.put("average", {str(i): tensor for i, tensor in enumerate(self.average)})
        for i, moments in self.optimizer.state_dict()["state"].items():
            state.put(f"optimizer/{i}", moments)
        state.put("generator", {"cpu": torch.get_rng_state()})
        if torch.device(self.config.device).type == "cuda":
            state.put("generator", {"device": torch.cuda.get_rng_state(self.config.device)})
        best = {k: v for k, v in vars(self.best).items() if k != "weights"}
        state.facts = {
            "step": self.step,
            "best": best,
            "batches": self.batches.rng_state,
            "points": self.points,
            "losses": [float(loss) for loss in self._losses],
        }
        return state

    def restore(self, state: ResumeState) -> None:
        """Goes on from ``state``, one of a training of equal configuration and data."""
        self.network.load_trained_state(state.take("network"))
        for i, tensor in state.take("average").items():
            self.average[int(i)].copy_(tensor)
        document = self.optimizer.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.take("optimizer").items():
            i, key = name.split("/")
            moments.setdefault(int(i), {})[key] = tensor
        self.optimizer.load_state_dict({**document, "state": moments})
        generators = state.take("generator")
        torch.set_rng_state(generators["cpu"])
        if "device" in generators:
            torch.cuda.set_rng_state(generators["device"], self.config.device)
        facts: dict[str, Any] = state.facts
        self.step = self._begun_at = facts["step"]
        self.best = BestWeights(**facts["best"], weights=state.take("best"))
        self.batches.rng_state = facts["batches"]
        self.points = [(name, step, value) for name, step, value in facts["points"]]
        self._losses = list(torch.tensor(facts["losses"], device=self.config.device))

    def _take_step(self, batch: Batch) -> Tensor:
        """One step of the optimiser; this process's part of the batch's mean loss."""
        # Processes may have unequal shares, and their gradients are averaged: a frame counts the same in all.
        share = len(batch.frames) / self.config.batch_size
        loss = self._loss(self._wrapped, batch) * (share * self.group.size)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            if self.step == 1:
                torch._foreach_copy_(self.average, self.parameters)
            else:
                torch._foreach_lerp_(self.average, self.parameters, 1 - self.config.average)
        return loss.detach() / self.group.size

    def _loss(self, network: torch.nn.Module, batch: Batch) -> Tensor:
        """The mean cross-entropy of a batch, in nats."""
        device, config = self.config.device, self.config
        values = self.returns[batch.frames].to(device, non_blocking=True)
        if config.target == "two_hot":
            targets = self.bins.two_hot(values)
        else:
            targets = self.bins.hl_gauss(values, config.target_deviation)
        tokens = self.tokens[self.table.episode_index[batch.frames]]
        with torch.autocast(
            torch.device(device).type, torch.bfloat16, enabled=config.precision == "bfloat16"
        ):
            logits = network(
                batch.images.to(device, non_blocking=True),
                batch.state.to(device, non_blocking=True),
                tokens.to(device, non_blocking=True),
            )
        return functional.cross_entropy(logits.float(), targets)

    @torch.no_grad()
    def _evaluate(self, rate: float) -> None:
        """Updates ``best`` by the averaged weights; without validation episodes the latest are the best."""
        device, step = self.config.device, self.step
        mean = self.group.sum(torch.stack(self._losses)).cpu().double().numpy().mean()
        train_loss, self._losses = float(mean), []
        if not np.isfinite(train_loss):
            raise InputError(
                "the value model's loss is not finite: lower learning_rate, or look for NaN in states"
            )
        elapsed, frames = time.monotonic() - self._began, (step - self._begun_at) * self.config.batch_size
        self._note("loss/training", train_loss)
        self._note("learning_rate", rate)
        self.frames_per_s = frames / max(elapsed, 1e-9)
        with self._averaged():
            loss = None
            if len(self.held_frames):
                mine = self.held_frames[self.group.share(len(self.held_frames))]
                loss = float(self.group.sum(torch.tensor(self._held_loss(mine), device=device).double()))
                self._note("loss/validation", loss)
                if not np.isfinite(loss):
                    raise InputError("the value model's held-out loss is not finite: look for NaN in states")
            best = self.best
            if loss is not None and best.validation_loss is not None and loss >= best.validation_loss:
                best.evaluations_since += 1
                return
            best.step, best.train_loss, best.validation_loss, best.evaluations_since = (
                step,
                train_loss,
                loss,
                0,
            )
            best.weights = {
                k: v.detach().to("cpu", copy=True) for k, v in self.network.trained_state().items()
            }

    def _held_loss(self, frames: np.ndarray) -> float:
        """This process's part of the mean loss over the held-out frames."""
        self.network.eval()
        loss = 0.0
        for part in np.array_split(frames, -(-len(frames) // 256)) if len(frames) else ():
            state = torch.as_tensor(self.table.state[part])
            batch = Batch(part, torch.as_tensor(self.table.images(part)), state)
            loss += float(self._loss(self.network, batch)) * len(part) / len(self.held_frames)
        self.network.train()
        return loss

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Within: the network has the running mean of its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for i, parameter in enumerate(self.parameters):
            parameter.data, self.average[i] = self.average[i], parameter.data

    def _note(self, name: str, value: float) -> None:
        self.points.append((name, self.step, value))


def _frames_of(table: FrameTable, episode_ids: list[str]) -> np.ndarray:
    wanted = set(episode_ids)
    member = np.array([episode_id in wanted for episode_id in table.episode_ids], dtype=bool)
    return np.flatnonzero(member[table.episode_index])


def _schedule(step: int, config: ValueTrainingConfig) -> float:
    """The learning rate at ``step`` (from 1) as a share of its peak."""
    warmup = min(1.0, step / max(1, config.warmup_steps))
    return float(warmup * 0.5 * (1 + np.cos(np.pi * min(1.0, (step - 1) / config.steps))))
