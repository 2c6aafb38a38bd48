"""How much work steps did, attempts that were killed included, seen from outside: by their folders and locks.

An attempt begins when its folder aside appears (``steps/<name>/.<key>.<run>.partial``) and ends when that is
gone, or when nobody holds the step's lock any more. Whoever holds the lock is the process that works: what
counts is the time that it has had of a core since then (Linux: ``/proc/locks``), since seconds on a clock
grow with whatever else the machine does. What a worker imports first, before it locks the step
(:mod:`workflows.step_imports`), is the start of a process and no work, as Python's and Ray's own. So both
runs are measured alike, and nothing of the software under test takes part in it.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from pipeline.file_lock import is_locked
from workflows.step_recipe import StepAddress
from workflows.step_store import StepStore

LOOK_S = 0.1


@dataclass
class Attempt:
    """One computation of a step, to its end or to its death.

    ``began`` and ``seen`` are seconds of the monotonic clock, ``cpu_began`` and ``cpu_seen`` those that its
    process and the processes that it started and waited for had had of a core.
    """

    name: str
    key: str
    run: str
    began: float
    seen: float
    cpu_began: float = 0.0
    cpu_seen: float = 0.0

    @property
    def seconds(self) -> float:
        """How long a worker was at it, to within a look or two."""
        return self.seen - self.began

    @property
    def work_s(self) -> float:
        """How much of a core it had."""
        return self.cpu_seen - self.cpu_began


class Watch:
    """Watches one workspace from a thread; a context manager. Every attempt is noted in a log at its end."""

    def __init__(self, steps: Path, log: Path) -> None:
        """``steps`` need not exist yet; ``log`` is a file of JSON lines, appended to."""
        self._store, self._log = StepStore(steps), log
        self._running: dict[str, Attempt] = {}
        self.attempts: list[Attempt] = []
        self._busy_s = 0.0
        self._looked: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="attempts", daemon=True)

    def __enter__(self) -> Self:
        """Begins to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Looks a last time and stops."""
        self._ended.set()
        self._thread.join()

    @property
    def work_s(self) -> float:
        """Seconds of a core that all attempts had that have ended."""
        return sum(attempt.work_s for attempt in self.attempts)

    @property
    def attempts_s(self) -> float:
        """Seconds on a clock of all attempts that have ended."""
        return sum(attempt.seconds for attempt in self.attempts)

    @property
    def busy_s(self) -> float:
        """Seconds in which at least one step was being computed."""
        return self._busy_s

    @property
    def running(self) -> list[Attempt]:
        """The attempts of just now."""
        return list(self._running.values())

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            self._look()
        self._look()

    def _look(self) -> None:
        now = time.monotonic()
        alive = set()
        for partial in self._store.partials():
            key, run = partial.name.split(".")[1:3]
            name = partial.parent.name
            lock = self._store.lock_path(StepAddress(name, key))
            if not is_locked(lock):
                continue
            cpu = _had_s(lock)
            attempt = self._running.setdefault(run, Attempt(name, key, run, now, now, cpu or 0.0, cpu or 0.0))
            attempt.seen = now
            # Where the process ends in just this moment, what it had before counts.
            attempt.cpu_seen = max(attempt.cpu_seen, cpu or 0.0)
            alive.add(run)
        if self._running and self._looked is not None:
            self._busy_s += now - self._looked
        self._looked = now
        for run in [run for run in self._running if run not in alive]:
            attempt = self._running.pop(run)
            self.attempts.append(attempt)
            with self._log.open("a") as log:
                log.write(json.dumps({**asdict(attempt), "seconds": round(attempt.seconds, 3)}) + "\n")


def _had_s(lock: Path) -> float | None:
    """Seconds of a core that the process has had which holds the lock; ``None`` where it is gone."""
    try:
        number = lock.stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(f":{number}"):
                times = psutil.Process(int(fields[4])).cpu_times()
                return float(times.user + times.system + times.children_user + times.children_system)
    except (OSError, psutil.Error):
        pass
    return None


def manifest_seconds(steps: Path) -> float:
    """The work of a workspace as its published steps tell it: the sum of their manifests' seconds."""
    return sum(result.seconds for result in StepStore(steps).published())
