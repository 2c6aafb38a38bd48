"""A training of several processes as threads of one, between which gloo carries numbers as it would."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import HashStore, ProcessGroupGloo

from pipeline.frame_table import FrameTable
from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.new_policy import new_checkpoint, table_facts
from pipeline.policy.training_statistics import table_statistics
from pipeline.policy.tuning import prepare
from pipeline.process_group import Group
from workflows.policy_training_batches import PolicyBatches
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.policy_training_group import trainer_in
from workflows.policy_training_loop import PolicyTrainer

_PATIENCE = timedelta(minutes=2)


class ThreadGroup(Group):
    """One of ``size`` threads that made theirs on the same ``store``."""

    def __init__(self, store: HashStore, rank: int, size: int) -> None:
        """Waits for the others."""
        self.rank, self.size = rank, size
        self._gloo: Any = ProcessGroupGloo(store, rank, size, _PATIENCE)

    def sum(self, value: Tensor) -> Tensor:
        """See :meth:`Group.sum`."""
        total = value.detach().clone()
        self._gloo.allreduce([total]).wait()
        return total

    def first(self, value: Tensor) -> Tensor:
        """See :meth:`Group.first`."""
        given = value.detach().clone()
        self._gloo.broadcast(given, 0).wait()
        return given

    def barrier(self) -> None:
        """See :meth:`Group.barrier`."""
        self._gloo.barrier().wait()


def in_threads(size: int, work: Callable[[Group], Any]) -> list[Any]:
    """What ``work`` gave in each of ``size`` threads, by rank."""
    store = HashStore()
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: work(ThreadGroup(store, rank, size)), range(size)))


def make_model(table: FrameTable, config: PolicyTrainingConfig) -> tuple[Checkpoint, Any]:
    """A new policy and what of it is trained.

    To be called in one thread at a time, since weights and adapters come from torch's one generator.
    """
    torch.manual_seed(config.seed)
    stats = table_statistics(table, np.ones(len(table), dtype=bool))
    facts = table_facts(table)
    model = new_checkpoint(config.policy_type, facts, stats, config.policy_options, config.device)
    return model, prepare(model.policy, config)


def make_trainer(
    group: Group,
    table: FrameTable,
    indicators: np.ndarray,
    config: PolicyTrainingConfig,
    made: tuple[Checkpoint, Any],
) -> PolicyTrainer:
    """A process's part of the training, as ``train_policy`` makes it, of what :func:`make_model` made."""
    model, trained = made
    model.tell(indicators)
    rows = group.share(config.batch_size)
    batches = PolicyBatches(table, indicators, None, config, model, rows=rows)
    return trainer_in(group, model.policy, trained, batches, config)
