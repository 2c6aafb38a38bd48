"""Each model that trains on a GPU has one to itself, by the name that its process knows it by.

Ray counts GPUs that it is told of, so that who gets which, and what they see, needs none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from tests.workflows.scoring_workspace import SIZE, make_ensemble, make_workspace
from value_model.training_config import ValueTrainingConfig
from workflows.gpu_share import device_here, gpus_to_reserve, require_gpu
from workflows.local_ray import OBJECT_STORE_BYTES
from workflows.scoring_actors import ScoringActor
from workflows.scoring_pool import score_workspace
from workflows.scoring_worker import ScoringJob
from workflows.settings import LoopSettings, ValueSettings
from workflows.steps import StepRunner
from workflows.value_ensemble import ValueEnsemble
from workflows.value_graph import ValueGraph


@pytest.fixture
def two_gpus() -> Iterator[Any]:
    """A Ray that believes in two GPUs."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def members(root: Path, **value: Any) -> list[Any]:
    settings = replace(LoopSettings(), value=replace(ValueSettings(), **value))
    snapshot = Snapshot(root / "snapshot.parquet", "d" * 64, ())
    return ValueGraph(Workspace(root), settings).value_members(snapshot)


def test_a_training_on_a_gpu_reserves_one_unless_its_processes_do(tmp_path: Path) -> None:
    assert [step.num_gpus for step in members(tmp_path)] == [0.0] * 4
    on_gpu = members(tmp_path, device="cuda")
    assert [step.num_gpus for step in on_gpu] == [1.0] * 4
    assert [step.num_gpus for step in members(tmp_path, device="cuda", workers=2)] == [0.0] * 4
    assert {step.num_gpus for step in members(tmp_path, device="cuda:0")} == {1.0}
    assert replace(on_gpu[0], num_gpus=0.0).key == on_gpu[0].key, "what is reserved is not in the key"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_certain_one_of_several_gpus_is_refused_in_one_line(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError, match=r"'cuda:1': say cuda.*CUDA_VISIBLE_DEVICES=1") as refused:
        members(tmp_path, device="cuda:1", workers=workers)
    assert "\n" not in str(refused.value)
    assert gpus_to_reserve("cpu", 1) == 0.0


def test_in_a_process_that_ray_gave_a_gpu_it_is_plain_cuda(two_gpus: Any, tmp_path: Path) -> None:
    def trained_on() -> list[str]:
        from value_model import training
        from workflows.value_training import train_member

        found: list[str] = []

        def noted(table: Any, outcomes: Any, config: ValueTrainingConfig, *_: Any, **__: Any) -> None:
            found.append(config.device)

        # In a process of its own, which does nothing else after it.
        vars(training)["train_fold"] = noted
        table: Any = None
        train_member(table, {}, ValueTrainingConfig(device="cuda:1"), 0, 0, tmp_path)
        return [*found, device_here("cpu")]

    class Actor(ScoringActor):
        def device(self) -> str:
            return self._worker._job.config().device

    training = ValueTrainingConfig(device="cuda:1").to_parameters()
    job = ScoringJob(tmp_path, "run", (), ValueEnsemble((), training, SIZE, ""))
    actor = two_gpus.remote(Actor).options(num_gpus=1).remote(job, {})
    task = two_gpus.remote(trained_on).options(num_gpus=1).remote()
    assert two_gpus.get([actor.device.remote(), task]) == ["cuda", ["cuda", "cpu"]]
    two_gpus.kill(actor)
    without = two_gpus.remote(lambda: device_here("cuda:1"))
    assert two_gpus.get(without.remote()) == "cuda:1", "no GPU of its own"
    assert device_here("cuda:1") == "cuda:1", "the driver sees all"


def test_without_ray_a_device_keeps_its_name() -> None:
    assert device_here("cuda:1") == "cuda:1" and device_here("cpu") == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_turn_on_one_and_its_scoring_are_refused_in_one_line(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with StepRunner(workspace) as runner, pytest.raises(InputError, match="needs 1 GPU, and there is 0"):
        runner.run_all(members(tmp_path, device="cuda"))
    with pytest.raises(InputError, match=r"on 'cuda', and 0 GPUs were found here"):
        require_gpu("cuda")
    require_gpu("cpu")
    workspace, entries = make_workspace(tmp_path, [4, 4])
    ensemble = make_ensemble(workspace, [entry.id for entry in entries])
    ensemble = replace(ensemble, training={**ensemble.training, "device": "cuda"})
    for workers in (None, 2):
        with pytest.raises(InputError, match=r"on 'cuda', and 0 GPUs were found here"):
            score_workspace(workspace, ensemble, [entries[0].id], workers=workers)
