"""Trains one network in several processes that Ray Train starts, on one machine or many.

What each process does is a plain function; the first one's result comes back through a file. Ray Train
takes some ten to twenty seconds to start: for one process it is not used.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.durable_files import write_file
from pipeline.errors import Failure, InputError
from workflows.cluster_place import require_place
from workflows.gpu_share import require_workers
from workflows.local_ray import LOST_WORKER_RETRIES, local_ray, resources
from workflows.progress import ProgressFile, read_progress

Progress = Callable[[int, int, str], None]
Share = Callable[..., dict[str, Any]]

# Seconds between two looks at how far the processes are.
_LOOK_S = 1.0
_FOLDER, _RESULT, _PROGRESS = "ray-train", "result.json", "progress.json"
_INPUT_ERROR = "input-error.txt"


def train_together(
    share: Share,
    job: tuple[Any, ...],
    *,
    workers: int,
    device: str,
    out: Path,
    what: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Calls ``share(device, *job, progress)`` in ``workers`` processes at once; what the first one returned.

    ``share`` is a module's function and returns plain JSON; within, ``torch.distributed`` is initialised. On
    GPUs (``device``) each process has one of its own, whose number its ``device`` says. ``progress`` is told
    (done, all, message) as the first process says it. ``out``, an absolute path, must be the same folder on
    every machine. Where a process is lost all begin again, twice at most: going on from where they were is
    the function's matter. ``what`` they train is named in errors. Raises ``InputError`` where there are too
    few cores or GPUs, and what the function raises of that kind; ``Failure`` where processes are lost again
    and again, and for everything else that they raise.
    """
    folder = out / _FOLDER
    with local_ray(workers):
        require_workers(device, workers, resources())
        folder.mkdir(parents=True, exist_ok=True)
        for left_by_a_killed_command in (_RESULT, _INPUT_ERROR):
            (folder / left_by_a_killed_command).unlink(missing_ok=True)
        try:
            with _told(folder / _PROGRESS, progress):
                _fit(share, job, workers, device, folder)
            said: dict[str, Any] = json.loads((folder / _RESULT).read_text())
        except Exception as error:
            refused = folder / _INPUT_ERROR
            if refused.is_file():
                raise InputError(refused.read_text()) from error
            raise Failure(
                f"the {workers} processes that train {what} failed ({' '.join(str(error).split())[:300]})"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return said


def _fit(share: Share, job: tuple[Any, ...], workers: int, device: str, folder: Path) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    on_gpu = device.startswith("cuda")
    trainer = TorchTrainer(
        _do_share,
        train_loop_config={"share": share, "job": job, "device": device, "folder": folder},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpu),
        run_config=RunConfig(
            name="run",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=LOST_WORKER_RETRIES),
        ),
    )
    with _own_interrupts():
        trainer.fit()


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """After: Ctrl-C does what it did before. Ray Train leaves its own handler behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _do_share(settings: dict[str, Any]) -> None:
    """What each of the processes does; the first leaves the result in a file."""
    import torch
    from ray.train.torch import get_device

    require_place()
    folder, device = settings["folder"], settings["device"]
    if (folder / _INPUT_ERROR).is_file():
        return  # Ray tries again, which would find the same
    if device.startswith("cuda"):
        # By number: torch's present one is a thread's own, and another thread makes the batches.
        device = str(get_device())
        torch.cuda.set_device(device)
    first = torch.distributed.get_rank() == 0
    progress = ProgressFile(folder / _PROGRESS) if first else None
    try:
        said = settings["share"](device, *settings["job"], progress)
    except InputError as error:
        # All processes may find it or one alone, for which the others would wait: so it must end them.
        write_file(folder / _INPUT_ERROR, str(error).encode())
        raise
    if first:
        write_file(folder / _RESULT, json.dumps(said).encode())


@contextmanager
def _told(path: Path, progress: Progress | None) -> Iterator[None]:
    """Within: ``progress`` is told what the file says, which the processes cannot call; at the end, too."""
    if progress is None:
        yield
        return
    tell = progress
    ended = threading.Event()
    told: tuple[int, int, str] | None = None

    def look() -> None:
        nonlocal told
        found = None
        # Of a machine elsewhere the file may not be whole yet.
        with suppress(OSError, ValueError):
            found = read_progress(path)
        if found is not None and found != told:
            told = found
            tell(*found)

    def watch() -> None:
        while not ended.wait(_LOOK_S):
            look()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    look()
