"""Batch normalisation over several processes, in a group of one and in a real one of two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

from value_model.training_group import Group, ProcessGroup, share_batch_statistics

FEATURES = 5


@pytest.fixture
def alone() -> Iterator[ProcessGroup]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield ProcessGroup()
    finally:
        torch.distributed.destroy_process_group()


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, FEATURES), nn.BatchNorm1d(FEATURES), nn.Tanh(), nn.Linear(FEATURES, 1))


def loss_of(network: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return (network(rows) ** 2).mean()


def test_shared_statistics_of_one_process_are_pytorchs(alone: ProcessGroup) -> None:
    plain, shared = layers(), layers()
    share_batch_statistics(shared)
    rows = torch.randn(7, 4)
    for network in (plain, shared):
        loss_of(network, rows).backward()
    for (name, expected), found in zip(plain.named_parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name, atol=1e-6, rtol=1e-4)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(shared.get_buffer(name), buffer)
    torch.testing.assert_close(shared.eval()(rows), plain.eval()(rows))
    assert list(shared.state_dict()) == list(plain.state_dict())
    assert float(alone.sum(torch.tensor(3.0))) == 3.0


def _half(rank: int, folder: str) -> None:
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    group, network = ProcessGroup(), layers()
    share_batch_statistics(network)
    torch.manual_seed(1)
    rows = torch.randn(7, 4)
    mine = rows[group.share(7)]
    # Unequal shares: weighted, as in training, so that every row counts the same.
    (loss_of(network, mine) * (len(mine) * 2 / 7)).backward()
    gradients = {name: group.sum(p.grad) / 2 for name, p in network.named_parameters() if p.grad is not None}
    if rank == 0:
        torch.save({**gradients, **dict(network.named_buffers())}, f"{folder}/found.pt")
    group.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_and_statistics_of_the_whole_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(_half, (str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    network = layers()
    torch.manual_seed(1)
    loss_of(network, torch.randn(7, 4)).backward()
    expected = {name: p.grad for name, p in network.named_parameters()}
    for name, value in {**expected, **dict(network.named_buffers())}.items():
        torch.testing.assert_close(found[name], value, msg=name, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_whole_and_apart(size: int) -> None:
    groups = [Group() for _ in range(size)]
    for rank, group in enumerate(groups):
        group.rank, group.size = rank, size
    rows = [row for group in groups for row in range(13)[group.share(13)]]
    assert rows == list(range(13))
