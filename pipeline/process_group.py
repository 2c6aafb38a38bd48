"""The processes that train one network together, each on its share of every batch.

What they have in common is said here without a network: who is who, sums over all, and random draws that
differ from process to process and are the same when a training is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

MESSAGE_NUMBERS = 2**24
"""Numbers that are sent at once, at most: 64 MiB of float32."""


class Group:
    """One process alone; what several do otherwise is in :class:`ProcessGroup`.

    ``rank`` counts the processes from 0, ``size`` is how many there are.
    """

    rank: int = 0
    size: int = 1

    def sum(self, value: Tensor) -> Tensor:
        """The sum of every process's ``value``, the same in all."""
        return value

    def first(self, value: Tensor) -> Tensor:
        """Process 0's ``value``, in all; every process's has the same shape and dtype."""
        return value

    def share(self, total: int) -> slice:
        """Which of ``total`` rows are this process's; the shares differ by one row at most."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def barrier(self) -> None:
        """Waits until every process is here."""


class ProcessGroup(Group):
    """The processes of ``torch.distributed``, which somebody (Ray Train, torchrun) has initialised."""

    def __init__(self) -> None:
        """Raises ``RuntimeError`` where ``torch.distributed`` is not initialised."""
        self.rank = torch.distributed.get_rank()
        self.size = torch.distributed.get_world_size()

    def sum(self, value: Tensor) -> Tensor:
        """See :meth:`Group.sum`."""
        total = value.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    def first(self, value: Tensor) -> Tensor:
        """See :meth:`Group.first`."""
        given = value.detach().clone()
        torch.distributed.broadcast(given, src=0)
        return given

    def barrier(self) -> None:
        """See :meth:`Group.barrier`."""
        torch.distributed.barrier()


def seed_of(*parts: int) -> int:
    """A seed that follows from all ``parts`` (0 or more each), such as (seed, step, rank)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


@torch.no_grad()
def replace_together(
    tensors: Iterable[Tensor], exchange: Callable[[Tensor], Tensor], most: int = MESSAGE_NUMBERS
) -> None:
    """Replaces ``tensors`` in place by ``exchange`` of their numbers, many of them in one message.

    ``exchange`` gets 1-D tensors of ``most`` numbers or, where one tensor is larger, more; mixed dtypes are
    promoted to one that holds all, and converted back. Every process must give the same shapes and dtypes in
    the same order.
    """
    waiting: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if waiting and numbers + tensor.numel() > most:
            _replace(waiting, exchange)
            waiting, numbers = [], 0
        waiting.append(tensor)
        numbers += tensor.numel()
    if waiting:
        _replace(waiting, exchange)


def give_to_all(tensors: Iterable[Tensor], group: Group) -> None:
    """Replaces every process's ``tensors``, of any dtypes, in place by process 0's."""
    of_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        of_dtype.setdefault(tensor.dtype, []).append(tensor)
    for dtype, alike in of_dtype.items():
        # Not all ways of sending know truth values.
        sent = torch.uint8 if dtype == torch.bool else dtype
        replace_together(alike, lambda flat, sent=sent: group.first(flat.to(sent)))  # type: ignore[misc]  # mypy does not infer a lambda's default


def _replace(tensors: Sequence[Tensor], exchange: Callable[[Tensor], Tensor]) -> None:
    numbers = exchange(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    parts = numbers.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
