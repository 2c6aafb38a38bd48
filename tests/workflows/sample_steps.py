"""Step functions for the tests; at the top level of a module, as steps must be."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import Failure, InputError
from workflows.progress import Progress


def write_noise(
    out: Path, *, size: int, seed: int, seconds: float = 0.0, progress: Progress
) -> dict[str, Any]:
    """Random numbers into two files, with a pause between them."""
    numbers = np.random.default_rng(seed).random(size)
    np.save(out / "first.npy", numbers[: size // 2])
    for done in range(10):
        progress(done, 10, "sleeping")
        time.sleep(seconds / 10)
    (out / "folder").mkdir()
    np.save(out / "folder" / "second.npy", numbers[size // 2 :])
    return {"sum": float(numbers.sum()), "process": "any"}


def meet(out: Path, *, here: str, other: str, place: Path, progress: Progress) -> None:
    """Ends only when a step that calls itself ``other`` runs at the same time."""
    (place / here).touch()
    deadline = time.monotonic() + 60
    while not (place / other).exists():
        if time.monotonic() > deadline:
            raise Failure(f"{other} did not run beside {here}")
        time.sleep(0.02)
    for done in range(5):
        progress(done, 5, "together")
        time.sleep(0.3)


def add_up(out: Path, *, left: Path, right: Path, others: list[Path] | None = None) -> dict[str, Any]:
    """The sum of the first halves of its inputs."""
    folders = [left, right, *(others or [])]
    total = sum(float(np.load(folder / "first.npy").sum()) for folder in folders)
    (out / "sum.txt").write_text(repr(total))
    return {"total": total}


def read_text(out: Path, *, file: Path) -> dict[str, Any]:
    """The text of a file that no step made."""
    return {"text": file.read_text()}


def write_file(out: Path, *, size: int, seed: int, **inputs: Path | list[Path]) -> dict[str, Any]:
    """One file of so many bytes, whatever the inputs."""
    (out / "file.bin").write_bytes(np.random.default_rng(seed).bytes(size))
    return {"inputs": sorted(inputs)}


def link_video(out: Path, *, videos: Path, n: int) -> None:
    """A table of its own, and a hard link to a video that others use too."""
    (out / "table.bin").write_bytes(bytes(300 + n))
    os.link(videos / "shared.mp4", out / "video.mp4")


def link_of(out: Path, *, base: Path, seed: int) -> None:
    """A view: a table of its own, and hard links to the table and the video of its base."""
    (out / "prompts.bin").write_bytes(bytes(100 + seed))
    for name in ("table.bin", "video.mp4"):
        os.link(base / name, out / name)


def refuse(out: Path, *, reason: str) -> None:
    """Raises for bad input."""
    (out / "half.txt").write_text("half")
    raise InputError(reason)


def fail(out: Path, *, kind: str) -> None:
    """Raises an error that is not the input's."""
    if kind == "Failure":
        raise Failure("the gate was not passed")
    raise ZeroDivisionError("division by zero")


def die_once(out: Path, *, mark: Path) -> dict[str, Any]:
    """Its process dies at the first attempt."""
    (out / "half.txt").write_text("half")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (out / "half.txt").write_text("whole")
    return {}


def disturbed(out: Path, *, mark: Path, number: int, times: int) -> dict[str, Any]:
    """Its first ``times`` attempts end with the I/O error ``number``; the result counts them."""
    (out / "half.txt").write_text("half")
    attempts = int(mark.read_text()) + 1 if mark.exists() else 1
    mark.write_text(str(attempts))
    if attempts <= times:
        raise OSError(number, os.strerror(number))
    return {"attempts": attempts}


def never_end(out: Path, *, mark: Path, progress: Progress) -> None:
    """Hangs in C code that lets no other thread run, as a library with a bug may; notes each attempt."""
    (out / "half.txt").write_text("half")
    mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
    time.sleep(0.3)
    progress(3, 7)
    re.match(r"(a+)+$", "a" * 64 + "b")


def tell_environment(out: Path) -> dict[str, Any]:
    """What a worker process sees."""
    return {"threads": os.environ["OMP_NUM_THREADS"], "pid": os.getpid(), "torch": "torch" in sys.modules}


def count_cpus_of_actors(out: Path, *, actors: int) -> dict[str, Any]:
    """Runs a pool of actors on the Ray that it is itself a task of."""
    import ray

    from workflows.steps import local_ray

    with local_ray():
        pool: list[Any] = [ray.remote(_Counter).options(num_cpus=1).remote() for _ in range(actors)]
        counted = ray.get([actor.count.remote(10) for actor in pool])
    return {"counted": counted, "threads": os.environ["OMP_NUM_THREADS"]}


class _Counter:
    """An actor."""

    def count(self, to: int) -> int:
        """Counts."""
        return sum(1 for _ in range(to))


def write_manifest(out: Path) -> None:
    """Writes a file whose name is taken."""
    (out / "manifest.json").write_text("{}")


def return_path(out: Path) -> dict[str, Any]:
    """Returns what is no JSON."""
    return {"out": out}
