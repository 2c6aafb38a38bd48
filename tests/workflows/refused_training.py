"""What the processes of a training do where one of them alone is refused; loads as little as it can."""

from __future__ import annotations

from typing import Any

from pipeline.errors import InputError


def refused_by_one(device: str, workers: int, progress: object) -> dict[str, Any]:
    """What the first process does then waits for the second, which is gone."""
    import torch

    assert (device, progress is None) == ("cpu", torch.distributed.get_rank() == 1)
    if torch.distributed.get_rank() == workers - 1:
        raise InputError("the second process alone found something wrong")
    torch.distributed.barrier()
    return {}
