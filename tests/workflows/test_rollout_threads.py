"""A rollout leaves a core to the loop that moves the arm, and puts back what it changed."""

from __future__ import annotations

import os

import pytest
import torch

from workflows.live_recording import _a_core_for_the_loop


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 2), (16, 4)])
def test_plans_take_one_thread_less_than_there_are_cores(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with _a_core_for_the_loop():
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
