"""Trains one value model, in this process or in several that Ray Train starts, on one machine or many.

Several processes share every batch (:mod:`value_model.training_group`), so that the model is the same up
to the order of sums. Ray Train takes some twenty seconds to start: for one process it is not used. What a
training needs to go on after a kill is a file beside the steps; it serves a repeated step and, with several
processes, the ones that replace a lost process.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.durable_files import write_file
from pipeline.errors import Failure, InputError
from workflows.cluster_place import require_place
from workflows.gpu_share import device_here
from workflows.local_ray import LOST_WORKER_RETRIES, local_ray

if TYPE_CHECKING:  # load torch
    from pipeline.frame_table import FrameTable
    from value_model.returns import Outcomes
    from value_model.training import FoldResult, ValueTrainingConfig

Progress = Callable[[int, int], None]

# Seconds between two looks at how far the processes are.
_LOOK_S = 1.0
_RAY_FOLDER, _RESULT = "ray-train", "result.json"


def resume_path(workspace: Path, out: Path) -> Path:
    """Where the step that writes into ``out`` keeps what it needs to go on after a kill.

    Not in ``out``, which goes with the process; the name is the step's key.
    """
    return workspace / "steps" / ".resume" / f"{out.name.strip('.').split('.')[0]}.safetensors"


def train_member(
    table: FrameTable,
    outcomes: Outcomes,
    config: ValueTrainingConfig,
    fold: int,
    member: int,
    out: Path,
    progress: Progress | None = None,
    *,
    resume: Path | None = None,
    workers: int = 1,
) -> FoldResult:
    """``train_fold`` in ``workers`` processes; see there. Where Ray gave a process a GPU, it is that one.

    With several processes, ``out``, ``resume`` and the frame cache must be the same files on every machine.
    A lost process is replaced, and all go on from ``resume``. Raises ``Failure`` where processes are lost
    again and again.
    """
    from value_model.training import train_fold

    # What Ray hides is found by no number.
    config = replace(config, device=device_here(config.device))
    if workers == 1:
        return train_fold(table, outcomes, config, fold, member, out, progress, resume=resume)
    job = (table, outcomes, config, fold, member, out.absolute())
    with local_ray(workers), _told(out, config.steps, progress):
        return _train_together(job, resume and resume.absolute(), workers)


def _train_together(job: tuple[Any, ...], resume: Path | None, workers: int) -> FoldResult:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from value_model.training import FoldResult

    config, out = job[2], job[5]
    storage = out / _RAY_FOLDER
    trainer = TorchTrainer(
        _train_share,
        train_loop_config={"job": job, "resume": resume},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=config.device.startswith("cuda")),
        run_config=RunConfig(
            name="run",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=LOST_WORKER_RETRIES),
        ),
    )
    try:
        trainer.fit()
        said = json.loads((storage / _RESULT).read_text())
    except Exception as error:
        raise Failure(
            f"the {workers} processes that train a value model failed ({' '.join(str(error).split())[:300]})"
        ) from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    if "input_error" in said:
        raise InputError(said["input_error"])
    return FoldResult(**{**said, "path": out})


def _train_share(settings: dict[str, Any]) -> None:
    """What each of the processes does; the first leaves the result in a file."""
    import torch
    from ray.train.torch import get_device

    from value_model.training import train_fold
    from value_model.training_group import ProcessGroup

    require_place()
    table, outcomes, config, fold, member, out = settings["job"]
    group = ProcessGroup()
    config = replace(config, device=device_here(config.device))
    if config.device.startswith("cuda"):
        torch.cuda.set_device(get_device())
    try:
        result = train_fold(
            table, outcomes, config, fold, member, out, resume=settings["resume"], group=group
        )
        said = {**asdict(result), "path": str(out)}
    except InputError as error:
        # Every process finds the same. Not raised, since Ray would try again.
        said = {"input_error": str(error)}
    if group.rank == 0:
        write_file(out / _RAY_FOLDER / _RESULT, json.dumps(said).encode())


@contextmanager
def _told(out: Path, steps: int, progress: Progress | None) -> Iterator[None]:
    """Within: ``progress`` is told what the curves in ``out`` say, since the processes cannot call it."""
    from value_model.training_curves import CURVES_NAME, read_curves

    if progress is None:
        yield
        return
    tell = progress
    ended = threading.Event()

    def look() -> None:
        told = 0
        while not ended.wait(_LOOK_S):
            reached = max((step for _, step, _ in read_curves(out / CURVES_NAME)), default=0)
            if reached > told:
                told = reached
                tell(told, steps)

    thread = threading.Thread(target=look, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    tell(steps, steps)
