"""One policy's training in several processes: each takes its rows of every batch, all take the same steps.

The gradient of a step is that of the whole batch, whichever process computes which rows. A policy's loss is
a mean, over the action steps that are not padding or over the rows: with C_r of them in process r's rows
and C in all, the batch's mean is sum_r (C_r / C) loss_r, and so is its gradient. Where a loss has a second
mean over something else (a VAE's prior, sub-tasks that are known, the tokens of pi0_fast, of which rows have
different numbers), that part is weighted alike, which is exact only where all rows count the same. Random
draws follow from (seed, step, process): of several processes, others are made than of one alone, and the
same when a training is repeated or goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor, nn

from pipeline.errors import Failure
from pipeline.frame_dataset import PAD_SUFFIX
from pipeline.policy.tuning import autocast
from pipeline.process_group import Group, give_to_all, replace_together, seed_of
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.policy_training_loop import Batches, PolicyTrainer, Progress

# Their loss is the mean over the action steps that are not padding; others' is over rows, unless their
# configuration has do_mask_loss_for_padding (diffusion, multi_task_dit) and it is set.
_MEAN_OVER_STEPS = frozenset({"gen3_vla", "act", "eo1", "evo1", "smolvla"})


class GroupTrainer(PolicyTrainer):
    """A :class:`PolicyTrainer` of each process of a group; all have the same weights after every step.

    Buffers, such as the running statistics of a batch normalisation, are process 0's: each normalises by its
    own rows. A frozen part, or one that no loss of a step depends on, stays as it is.
    """

    def __init__(
        self,
        policy: PreTrainedPolicy,
        trained: list[nn.Parameter] | list[dict[str, Any]],
        batches: Batches,
        config: PolicyTrainingConfig,
        group: Group,
    ) -> None:
        """See :class:`PolicyTrainer`. Every process gets process 0's weights."""
        give_to_all([p.data for p in policy.parameters()], group)
        super().__init__(policy, trained, batches, config, after_backward=self._after_backward)
        self._group = group
        self._buffers = list(policy.buffers())
        self._device = next(policy.parameters()).device

    def run(self, progress: Progress | None, after_step: Callable[[], None]) -> None:
        """See :meth:`PolicyTrainer.run`; process 0 alone reports and keeps the state.

        Raises ``Failure`` where the processes are not at the same step.
        """
        first = self._group.first(torch.tensor(self.step, device=self._device))
        apart = self._group.sum(torch.tensor(float(self.step != int(first)), device=self._device))
        if apart:
            raise Failure(
                "the processes did not find the same state to go on from: they must see the same files"
            )
        if self._group.rank == 0:
            super().run(progress, after_step)
        else:
            super().run(None, lambda: None)

    def _take_step(self) -> Tensor:
        torch.manual_seed(seed_of(self._config.seed, self.step, self._group.rank))
        return super()._take_step()

    def _add_gradient(self, batch: dict[str, Any]) -> Tensor:
        """Adds this process's part of one batch's gradient; the loss of the whole batch."""
        mine = counted(self._policy, batch).to(self._device)
        weight = mine / self._group.sum(mine).clamp_min(1)
        with autocast(self._policy, self._config):
            loss, _ = self._policy.forward(batch)
        loss = loss * weight
        (loss / self._config.accumulate).backward()
        return self._group.sum(loss.detach())

    def _after_backward(self, parameters: list[nn.Parameter]) -> None:
        sum_gradients(parameters, self._group)
        give_to_all(self._buffers, self._group)


def sum_gradients(parameters: Sequence[nn.Parameter], group: Group) -> None:
    """Gives every process the sum of all processes' gradients of these, which are on one device.

    One that only some have counts as zero in the others; one that none has stays ``None``, so that the
    optimiser leaves the parameter alone as it would in one process.
    """
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    found: list[Tensor] = []
    for parameter, holders in zip(parameters, group.sum(has).tolist(), strict=True):
        if not holders:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    # In float32 also where weights are bfloat16, in which sums lose more than single gradients.
    replace_together(found, lambda flat: group.sum(flat.float()))


def trainer_in(
    group: Group,
    policy: PreTrainedPolicy,
    trained: list[nn.Parameter] | list[dict[str, Any]],
    batches: Batches,
    config: PolicyTrainingConfig,
) -> PolicyTrainer:
    """The trainer of a process of ``group``; the arguments are those of :class:`PolicyTrainer`."""
    if group.size == 1:
        return PolicyTrainer(policy, trained, batches, config)
    return GroupTrainer(policy, trained, batches, config, group)


def counted(policy: PreTrainedPolicy, batch: dict[str, Any]) -> Tensor:
    """How many samples the policy's mean loss is over, a float32 scalar: action steps, or rows."""
    actions = batch[ACTION]
    padded = batch.get(ACTION + PAD_SUFFIX)
    by_steps = policy.config.type in _MEAN_OVER_STEPS or getattr(
        policy.config, "do_mask_loss_for_padding", False
    )
    if padded is None or not by_steps:
        return torch.tensor(float(len(actions)))
    return (~padded).sum().float()
