"""Chaos: ``python -m tests.benchmarks.chaos [--quick] [--kills 50] [--seed N]``.

Three iterations of the loop on the simulator (``recap demo --iterations 3`` in a process of its own), first
undisturbed, then once more in another workspace while drivers, worker processes and a node of a cluster are
killed by SIGKILL at random moments. After each driver that was killed the same command is given again.

Both must come to the same: champions, ledger, published steps and the hash of every file in them (the report
without the durations that it tells), episodes, labels, snapshots, links. And nothing may be published twice,
damaged or left over.

``undisturbed_work_s`` and ``disturbed_work_s`` are the seconds of a core that worker processes had for steps,
killed attempts included, measured in both runs from outside (:mod:`tests.benchmarks.chaos_watch`);
``recomputation`` is their ratio. Python, Ray and worker processes that start (imports) are no work; what
passes while no step is at work is told apart. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.workspace import Workspace
from tests.benchmarks.chaos_compare import differences, faults, published_twice
from tests.benchmarks.chaos_run import DRIVER, NODE, WORKER, Disturbed, Kill, plan, run
from tests.benchmarks.chaos_watch import Watch, manifest_seconds
from tests.workflows.two_nodes import TwoNodes, two_nodes

ITERATIONS = 3


@dataclass(frozen=True)
class Sizes:
    """How much the demo records, trains and evaluates."""

    demonstrations: int
    rollouts: int
    policy_steps: int
    value_steps: int
    starts: int

    def words(self) -> list[str]:
        """As options of ``recap demo``."""
        return [
            word for name, value in vars(self).items() for word in (f"--{name.replace('_', '-')}", str(value))
        ]


FULL = Sizes(demonstrations=20, rollouts=20, policy_steps=1500, value_steps=600, starts=120)
QUICK = Sizes(demonstrations=6, rollouts=4, policy_steps=120, value_steps=60, starts=10)


@dataclass(frozen=True)
class Run:
    """One run of the command to its end, disturbed or not."""

    workspace: Workspace
    told: Disturbed
    work_s: float
    attempts_s: float
    busy_s: float
    wall_s: float


def command(root: Path, sizes: Sizes, *more: str, iterations: int = ITERATIONS) -> list[str]:
    """The command line, in this interpreter; ``--quick``, since so few values are not to be judged."""
    words = ["demo", "--workspace", str(root), "--quick", "--iterations", str(iterations)]
    return [sys.executable, "-m", "workflows.cli", *words, *sizes.words(), *more]


def carry_out(
    folder: Path, name: str, sizes: Sizes, kills: Sequence[Kill], cluster: TwoNodes | None, **options: Any
) -> Run:
    """One run in ``folder/name``."""
    root = folder / name
    began = time.monotonic()
    with Watch(root / "steps", folder / f"{name}-attempts.jsonl") as watch:
        told = run(command(root, sizes, **options), watch, kills, cluster, folder / f"{name}.log")
    return Run(Workspace(root), told, watch.work_s, watch.attempts_s, watch.busy_s, time.monotonic() - began)


def verdict(calm: Run, disturbed: Run) -> dict[str, Any]:
    """What the last line says; prints what is not as it should be."""
    unequal = differences(calm.workspace, disturbed.workspace)
    wrong = faults(calm.workspace) + faults(disturbed.workspace)
    for line in unequal + wrong:
        print(f"NOT EQUAL  {line}" if line in unequal else f"WRONG  {line}")
    return {
        "kills": {kind: disturbed.told.kills[kind] for kind in (DRIVER, WORKER, NODE)},
        "equal": not unequal and not wrong,
        "published_twice": published_twice(disturbed.workspace),
        "recomputation": round(disturbed.work_s / calm.work_s, 3),
        "undisturbed_work_s": round(calm.work_s, 1),
        "disturbed_work_s": round(disturbed.work_s, 1),
        "wall_s": round(calm.wall_s + disturbed.wall_s, 1),
    }


def explain(calm: Run, disturbed: Run) -> Iterator[str]:
    """How both runs went, for people."""
    for name, done in (("undisturbed", calm), ("disturbed", disturbed)):
        published = manifest_seconds(done.workspace.steps)
        yield (
            f"{name}: {done.told.starts} starts of the command, {done.wall_s:.0f} s in all. Steps were at "
            f"work for {done.busy_s:.0f} s; workers spent {done.attempts_s:.0f} s on them ({published:.0f} s "
            f"by the manifests of what was published), and {done.work_s:.0f} s of a core. "
            f"{done.told.idle_s:.0f} s were idle: starts of Python and Ray, the driver between steps"
        )
    kills = sum(disturbed.told.kills.values())
    yield (
        f"{kills} kills; {disturbed.work_s - calm.work_s:.0f} s of work done again, "
        f"{(disturbed.work_s - calm.work_s) / max(1, kills):.1f} s a kill"
    )
    for line in disturbed.told.failures:
        yield f"a command ended by itself, and was given again: {line}"


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    made = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def main() -> int:
    """Prints how it went; the exit status is 1 where the runs did not come to the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few minutes, six kills")
    parser.add_argument("--kills", type=int, help="how many (default 50; quick: 6)")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)), help="of the moments")
    parser.add_argument("--keep", type=Path, help="a new folder for both workspaces, logs and attempts")
    asked = parser.parse_args()
    kills, sizes = asked.kills or (6 if asked.quick else 50), QUICK if asked.quick else FULL
    print(f"seed {asked.seed}, {kills} kills, {sizes}", flush=True)
    with _folder(asked.keep) as folder:
        calm = carry_out(folder, "undisturbed", sizes, [], None)
        print(f"undisturbed: {calm.wall_s:.0f} s, {calm.work_s:.0f} s of work", flush=True)
        with two_nodes() as cluster:
            planned = plan(kills, calm.busy_s, asked.seed)
            disturbed = carry_out(folder, "disturbed", sizes, planned, cluster)
        for line in explain(calm, disturbed):
            print(line)
        found = verdict(calm, disturbed)
    print(json.dumps(found))
    return 0 if found["equal"] and not found["published_twice"] else 1


if __name__ == "__main__":
    sys.exit(main())
