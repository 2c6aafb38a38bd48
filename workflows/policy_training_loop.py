"""The gradient steps of a policy's training: the optimiser, the running mean of the weights, their state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.policy.plain_state import PlainState
from pipeline.policy.tuning import autocast
from pipeline.resume_state import ResumeState
from workflows.policy_training_config import PolicyTrainingConfig, learning_rate_factor

Progress = Callable[[int, int, float], None]
# What happens to the gradients of these parameters between the backward passes of a step and its clipping.
AfterBackward = Callable[[list[nn.Parameter]], None]

_REPORT_EVERY = 10


class Batches(Protocol):
    """What a trainer draws from: preprocessed batches for ever, and the state that decides those to come."""

    def draw(self) -> dict[str, Any]:
        """The next batch, as the policy's ``forward`` takes it."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that decides the batches to come: arrays by name, and plain JSON."""

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Goes on as from :meth:`state`."""


class RunningMean:
    """The running mean of the weights that are trained: those that ever had a gradient.

    After step t, from 0, mean := d mean + (1 - d) weight with d = min(decay, (1 + t) / (10 + t)), in float32.
    A weight without a gradient stays as it is under AdamW, decay or not, and is its own mean: it needs no
    copy. One that gets its first gradient late has been its own mean until then.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        """Of these ``parameters``, of any types of floats; ``decay`` 0 is the weights themselves."""
        self._parameters, self._decay = parameters, decay
        self._means: dict[int, Tensor] = {}

    def before_step(self) -> None:
        """Begins the means of those that have their first gradient; to be called before they change."""
        if not self._decay:
            return
        for i, parameter in enumerate(self._parameters):
            if i not in self._means and parameter.grad is not None:
                # Small changes would be lost in a mean of bfloat16 numbers.
                self._means[i] = parameter.detach().to(torch.float32, copy=True)

    def after_step(self, step: int) -> None:
        """Takes in the weights after ``step``, from 0."""
        if not self._means:
            return
        # The mean forgets its first values faster, or it would remember the start for long.
        decay = min(self._decay, (1 + step) / (10 + step))
        weights = [self._parameters[i].detach().float() for i in self._means]
        torch._foreach_lerp_(list(self._means.values()), weights, 1 - decay)

    def put(self) -> None:
        """Puts the mean into the parameters."""
        with torch.no_grad():
            for i, mean in self._means.items():
                self._parameters[i].copy_(mean)

    def state(self) -> dict[str, Tensor]:
        """The means by their parameter's place in the list; what is not in it is its own mean."""
        return {str(i): mean for i, mean in self._means.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on from :meth:`state`."""
        self._means = {
            int(i): mean.to(self._parameters[int(i)].device, torch.float32, copy=True)
            for i, mean in state.items()
        }


class PolicyTrainer:
    """One policy in training. ``step`` counts the finished steps, ``curve`` holds (step, mean loss since).

    ``waited_s`` is how long this object's steps waited for their batches, in seconds.
    """

    def __init__(
        self,
        policy: PreTrainedPolicy,
        trained: list[nn.Parameter] | list[dict[str, Any]],
        batches: Batches,
        config: PolicyTrainingConfig,
        *,
        after_backward: AfterBackward | None = None,
    ) -> None:
        """``trained`` is what :func:`pipeline.policy.tuning.prepare` gave for ``policy``.

        ``after_backward`` is called once a step, with all trained parameters, after the backward passes of
        all its batches and before clipping: where several processes train one policy, they average here.
        """
        self._policy, self._batches, self._config = policy, batches, config
        self._after_backward = after_backward
        policy.train()
        self._parameters = [p for p in policy.parameters() if p.requires_grad]
        self._plain = PlainState(policy)
        self._mean = RunningMean(self._parameters, config.ema_decay)
        self._optimizer = torch.optim.AdamW(
            trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._losses: list[float | Tensor] = []
        self.step = 0
        self.waited_s = 0.0
        self.curve: list[tuple[int, float]] = []

    def run(self, progress: Progress | None, after_step: Callable[[], None]) -> None:
        """Takes the steps that are left, calling ``after_step`` after each; leaves the mean in the policy.

        Raises ``InputError`` where the loss is not finite in the end.
        """
        while self.step < self._config.steps:
            self._losses.append(self._take_step())
            self.step += 1
            if self.step % _REPORT_EVERY == 0 or self.step == self._config.steps:
                self.curve.append((self.step, float(np.mean([float(loss) for loss in self._losses]))))
                self._losses.clear()
                if progress is not None:
                    progress(self.step, self._config.steps, self.curve[-1][1])
            after_step()
        if not math.isfinite(self.curve[-1][1]):
            raise InputError(f"policy training diverged (loss {self.curve[-1][1]}): lower learning_rate")
        self._mean.put()
        self._policy.eval()

    def state(self) -> ResumeState:
        """All that it takes to go on from here to the very same weights."""
        state = ResumeState()
        state.put("parameter", {str(i): p for i, p in enumerate(self._parameters)})
        state.put("buffer", dict(self._policy.named_buffers()))
        state.put("average", self._mean.state())
        for i, moments in self._optimizer.state_dict()["state"].items():
            state.put(f"optimizer/{i}", moments)
        state.put("generator", {"cpu": torch.get_rng_state()})
        if torch.device(self._config.device).type == "cuda":
            state.put("generator", {"device": torch.cuda.get_rng_state(self._config.device)})
        arrays, drawn = self._batches.state()
        state.put("batches", {name: torch.from_numpy(array) for name, array in arrays.items()})
        state.facts = {
            "step": self.step,
            "curve": self.curve,
            "losses": [float(loss) for loss in self._losses],
            "batches": drawn,
            "plain": self._plain.changes(),
        }
        return state

    def restore(self, state: ResumeState) -> None:
        """Goes on from ``state``, one of a training of equal configuration, data and start."""
        with torch.no_grad():
            for i, tensor in state.take("parameter").items():
                self._parameters[int(i)].copy_(tensor)
            buffers = dict(self._policy.named_buffers())
            for name, tensor in state.take("buffer").items():
                buffers[name].copy_(tensor)
        self._mean.restore(state.take("average"))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.take("optimizer").items():
            i, key = name.split("/")
            moments.setdefault(int(i), {})[key] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})
        generators = state.take("generator")
        torch.set_rng_state(generators["cpu"])
        if "device" in generators:
            torch.cuda.set_rng_state(generators["device"], self._config.device)
        facts: dict[str, Any] = state.facts
        self._plain.restore(facts["plain"])
        arrays = {name: tensor.numpy() for name, tensor in state.take("batches").items()}
        self._batches.restore(arrays, facts["batches"])
        self.step = facts["step"]
        self.curve = [(step, loss) for step, loss in facts["curve"]]
        self._losses = list(facts["losses"])

    def _take_step(self) -> Tensor:
        """One step of the optimiser; the mean loss of its batches."""
        config = self._config
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * learning_rate_factor(self.step, config)
        self._optimizer.zero_grad()
        losses = [self._add_gradient(self._draw()) for _ in range(config.accumulate)]
        if self._after_backward is not None:
            self._after_backward(self._parameters)
        torch.nn.utils.clip_grad_norm_(self._parameters, config.gradient_clip)
        self._mean.before_step()
        self._optimizer.step()
        self._mean.after_step(self.step)
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _draw(self) -> dict[str, Any]:
        """The next batch; how long it took is added up."""
        asked = time.perf_counter()
        batch = self._batches.draw()
        self.waited_s += time.perf_counter() - asked
        return batch

    def _add_gradient(self, batch: dict[str, Any]) -> Tensor:
        """Adds one batch's part of the step's gradient; its loss."""
        with autocast(self._policy, self._config):
            loss, _ = self._policy.forward(batch)
        (loss / self._config.accumulate).backward()
        return loss.detach()
