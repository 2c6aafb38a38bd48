"""Runs a command again and again until it has ended well, while it is killed at moments that a seed draws.

The command works on a Ray of its own, or on a cluster of two nodes, by turns: nodes can only be lost in the
second case, and how processes of a killed driver end differs between the two.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.benchmarks.chaos_watch import LOOK_S, Watch
from tests.workflows.two_nodes import TwoNodes, environment

DRIVER, WORKER, NODE = "driver", "worker", "node"
# Shares of the kills.
_KINDS = ((DRIVER, 0.4), (WORKER, 0.4), (NODE, 0.2))
# This share of the kills comes soon after a start, when drivers take locks, sweep and start Ray.
_EARLY_SHARE, _EARLY_S = 0.15, 10.0
# A command that fails this often without a kill in between has something else wrong.
_FAILURES = 5


@dataclass(frozen=True)
class Kill:
    """One kill: ``kind``, and when: after so many seconds of work, or (``early``) of the command itself.

    ``pick``, in [0, 1), says which of several processes.
    """

    kind: str
    after_s: float
    early: bool = False
    pick: float = 0.0


def plan(kills: int, busy_s: float, seed: int) -> list[Kill]:
    """``kills`` of the three kinds in random order, spread over ``busy_s`` seconds of work."""
    rng = random.Random(seed)
    kinds = [kind for kind, share in _KINDS for _ in range(max(1, round(kills * share)))]
    kinds = (kinds + [DRIVER] * kills)[:kills]
    rng.shuffle(kinds)
    mean = busy_s / kills
    found = []
    for kind in kinds:
        early = rng.random() < _EARLY_SHARE and kind == DRIVER
        after_s = rng.uniform(0, _EARLY_S) if early else rng.uniform(0, 2 * mean)
        found.append(Kill(kind, after_s, early, rng.random()))
    return found


@dataclass
class Disturbed:
    """What came of it: kills carried out by kind, starts of the command, how each start that failed ended."""

    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    failures: list[str] = field(default_factory=list)
    # Seconds of the commands in which no step was at work: Python, Ray, the driver between steps.
    idle_s: float = 0.0


def run(
    words: Sequence[str], watch: Watch, planned: Sequence[Kill], cluster: TwoNodes | None, log: Path
) -> Disturbed:
    """Runs the command until it ends with status 0. ``log`` gets what it prints.

    Raises ``RuntimeError`` where it fails again and again by itself.
    """
    told = Disturbed()
    left = list(planned)
    while True:
        joined = cluster is not None and NODE in _until_restart(left)
        more = ["--ray-address", cluster.address] if joined and cluster is not None else []
        told.starts += 1
        began, busy = time.monotonic(), watch.busy_s
        with log.open("ab") as output:
            driver = subprocess.Popen(
                [*words, *more], stdout=output, stderr=output, env=environment(), start_new_session=True
            )
        try:
            _disturb(driver, watch, left, cluster if joined else None, told)
        finally:
            if driver.poll() is None:
                driver.kill()
            status = driver.wait()
            told.idle_s += time.monotonic() - began - (watch.busy_s - busy)
        if status == 0:
            return told
        if status > 0:
            told.failures.append(_last_line(log))
            if len(told.failures) > _FAILURES + sum(told.kills.values()) // 3:
                raise RuntimeError(f"the command fails by itself: {told.failures[-1]} (see {log})")


def _until_restart(left: Sequence[Kill]) -> Iterator[str]:
    """The kinds of the kills up to the next that ends the driver."""
    for kill in left:
        yield kill.kind
        if kill.kind == DRIVER:
            return


def _disturb(
    driver: subprocess.Popen[bytes],
    watch: Watch,
    left: list[Kill],
    cluster: TwoNodes | None,
    told: Disturbed,
) -> None:
    """Carries out the kills that are due while the driver lives."""
    while left:
        kill = left[0]
        if not _wait(driver, watch, kill):
            return
        if _carry_out(kill, driver, cluster):
            left.pop(0)
            told.kills[kill.kind] += 1
        if driver.poll() is not None or kill.kind == DRIVER:
            return
    driver.wait()


def _wait(driver: subprocess.Popen[bytes], watch: Watch, kill: Kill) -> bool:
    """Waits for the moment; ``False`` where the driver ended before it."""
    began, busy = time.monotonic(), watch.busy_s
    while driver.poll() is None:
        passed = time.monotonic() - began if kill.early else watch.busy_s - busy
        if passed >= kill.after_s:
            return True
        time.sleep(LOOK_S / 2)
    return False


def _carry_out(kill: Kill, driver: subprocess.Popen[bytes], cluster: TwoNodes | None) -> bool:
    """Whether there was something of that kind to kill."""
    if kill.kind == DRIVER:
        driver.kill()
        driver.wait()
        return True
    if kill.kind == NODE and cluster is not None:
        cluster.nodes[-1].kill()
        cluster.nodes.pop()
        cluster.add()
        return True
    roots = [driver.pid, *(node.process.pid for node in cluster.nodes)] if cluster else [driver.pid]
    workers = list(_workers(roots))
    if not workers:
        time.sleep(LOOK_S)
        return False
    with suppress(psutil.NoSuchProcess):
        workers[int(kill.pick * len(workers))].kill()
        return True
    return False


def _workers(roots: Sequence[int]) -> Iterator[psutil.Process]:
    """The processes below ``roots`` in which Ray computes something just now."""
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(root).children(recursive=True):
                with suppress(psutil.Error):
                    title = (process.cmdline() or [""])[0]
                    # Ray's own agents are called so too; a node without them ends.
                    if title.startswith("ray::") and not title.endswith(("IDLE", "Agent")):
                        yield process


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""
