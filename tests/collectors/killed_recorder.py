"""Records with many processes at once and kills each at a random moment.

``python -m tests.collectors.killed_recorder ROOT KILLS TOGETHER SEED`` prints one line for each process: its
number, when it was killed (ns since 1970), how late that was (ns; so long the machine stood still), and how
many episodes it had begun. The processes are forks of this one, which has imported everything and runs no
thread, so that each costs next to nothing.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from collectors.collection_session import SessionSettings, run_session
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import TASK, Hand, MovingArm

LONGEST_S = 1.3


def record(root: Path, number: int, seconds: float) -> None:
    """Episode after episode of ``seconds`` at 20 Hz, with two cameras, until killed."""
    begun = os.open(root / f"{number}.begun", os.O_WRONLY | os.O_APPEND)

    def note(_: int) -> None:
        os.write(begun, b".")

    settings = SessionSettings(
        TASK,
        "nobody",
        rate_hz=20.0,
        max_seconds=seconds,
        auto_start_s=0.0,
        min_free_bytes=0,
        reserve_bytes=0,
        extra={"recorder": number},
    )
    run_session(Workspace(root), MovingArm(), Hand(), None, settings, prepare=note)


def kill_all(root: Path, numbers: range, rng: random.Random) -> None:
    """Starts one process for each number and kills all of them within about two seconds."""
    processes: dict[int, int] = {}
    try:
        for number in numbers:
            processes[number] = start(root, number, rng.choice((0.2, 0.6, 30.0)))
        began = time.monotonic()
        moments = sorted(rng.uniform(0.02, LONGEST_S) for _ in numbers)
        for number, moment in zip(rng.sample(numbers, len(numbers)), moments, strict=True):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            late_ns = int((time.monotonic() - began - moment) * 1e9)
            killed_ns = time.time_ns()
            kill(processes.pop(number))
            print(number, killed_ns, late_ns, (root / f"{number}.begun").stat().st_size, flush=True)
    finally:
        for pid in processes.values():
            kill(pid)


def start(root: Path, number: int, seconds: float) -> int:
    """A new recorder's process number."""
    (root / f"{number}.begun").touch()
    pid = os.fork()
    if pid == 0:
        try:
            record(root, number, seconds)
        finally:
            os._exit(1)  # a session that ends by itself has failed
    return pid


def kill(pid: int) -> None:
    """Kills one recorder; fails if it had ended by itself."""
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "a recorder ended by itself"


def main() -> None:
    """Batch after batch; see the module."""
    root, kills, together, seed = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    rng = random.Random(seed)
    for first in range(0, kills, together):
        kill_all(root, range(first, min(first + together, kills)), rng)


if __name__ == "__main__":
    main()
