"""The processes that train one value model together, each on its share of every batch.

The gradient of a batch is the mean over all its frames, whichever process computes which: so with equal
batches one process and several take the same steps, up to the order of floating-point sums (and dropout,
which each process draws for itself). Batch normalisation therefore takes its statistics over the whole
batch, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline import process_group
from value_model.value_network import ValueNetwork


class Group(process_group.Group):
    """One process alone; what several do otherwise is in :class:`ProcessGroup`."""

    def wrap(self, network: ValueNetwork) -> nn.Module:
        """What to call in training steps so that gradients are the whole batch's; shares the weights."""
        return network


class ProcessGroup(process_group.ProcessGroup, Group):
    """The processes of ``torch.distributed``; see there."""

    def wrap(self, network: ValueNetwork) -> nn.Module:
        """Distributed data parallel; rank 0's weights are given to all."""
        share_batch_statistics(network)
        return nn.parallel.DistributedDataParallel(
            network,
            # All buffers are the same already: the batch statistics are shared.
            broadcast_buffers=False,
            # A pretrained backbone has parts that values do not need, such as a text decoder's head.
            find_unused_parameters=True,
        )


def share_batch_statistics(network: nn.Module) -> None:
    """Makes every 1-D batch normalisation in ``network`` one over the batches of all processes, in place.

    Names and tensors of the weights stay. PyTorch's own synchronised one refuses CPUs.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = _GroupBatchNorm


class _GroupBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of ``(B, features)`` whose batch is that of all processes together."""

    def forward(self, input: Tensor) -> Tensor:
        """As PyTorch's, the statistics of training over every process's rows; ``input`` ``(B, features)``."""
        if not self.training:
            return super().forward(input)
        rows = input.float()
        count = _AllReduce.apply(rows.new_tensor(len(rows)))
        mean = _AllReduce.apply(rows.sum(0)) / count
        centred = rows - mean
        variance = _AllReduce.apply((centred**2).sum(0)) / count
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        normalised = centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None and self.running_mean is not None and self.running_var is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _AllReduce(torch.autograd.Function):
    """The sum over all processes; every process's loss depends on it, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: object, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total
