"""The runner tells what a policy with sub-tasks said on the way to its chunk, without asking it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.policy.checkpoint import load_checkpoint
from pipeline.policy.remote import RemotePolicy
from pipeline.policy.runner import PolicyRunner
from pipeline.policy.served_runner import ServedRunner
from tests.pipeline.policy_serving import TASK, serving
from tests.pipeline.test_policy_runner import observation
from tests.tiny_checkpoint import save_tiny_checkpoint

SUBTASKS = ["reach the red cube", "lift the red cube", "put it down"]
SMALL: dict[str, Any] = {"backbone": "transformer", "token_width": 32, "token_layers": 1, "expert_hidden": 32}


def talkative(folder: Path, head: str) -> Path:
    """A checkpoint whose sub-task depends on what it sees; random weights do so by chance."""
    save_tiny_checkpoint(folder, subtasks=SUBTASKS, action_head=head, **SMALL)
    for seed in range(50):
        runner = PolicyRunner(folder)
        loaded = load_checkpoint(folder)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in loaded.policy.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
        runner._policy = loaded.policy
        runner.reset(TASK, 0)
        batches = [runner._preprocessor(runner._batch(observation(step))) for step in range(8)]
        policy: Any = loaded.policy
        if len({policy.predict_subtask(batch)[0] for batch in batches}) > 1:
            loaded.save(folder)
            return folder
    raise AssertionError("no such weights")


@pytest.mark.parametrize("head", ["flow", "bins"])
def test_the_subtask_is_the_one_that_the_chunk_was_made_by(head: str, tmp_path: Path) -> None:
    runner = PolicyRunner(talkative(tmp_path, head))
    policy: Any = runner._policy
    said = []
    with serving(ServedRunner(tmp_path, "cpu")) as server, RemotePolicy(server.url) as remote:
        runner.reset(TASK, 0)
        remote.reset(TASK, 0)
        for step in range(8):
            runner.plan(observation(step))
            subtask = runner.subtask
            with torch.inference_mode():
                batch = runner._preprocessor(runner._batch(observation(step)))
                assert policy.predict_subtask(batch) == [subtask]
            remote.plan(observation(step))
            assert remote.subtask == subtask
            said.append(subtask)
    assert len(set(said)) > 1 and set(said) <= set(SUBTASKS)
    runner.reset(TASK, 0)
    assert runner.subtask is None


def test_a_policy_without_subtasks_says_nothing(tmp_path: Path) -> None:
    runner = PolicyRunner(save_tiny_checkpoint(tmp_path, **SMALL))
    runner.reset(TASK, 0)
    runner.plan(observation(0))
    assert runner.subtask is None
