"""What durable steps cost: ``python -m tests.benchmarks.steps``.

``step_overhead_ms``: what a small step takes beyond its bare function, in a graph of independent steps on a
Ray that runs already (``publish_ms`` of it is publication alone: flushed to the disk, renamed, logged).

``noop_improve_s``: a whole ``recap improve`` process that finds everything done, from outside, without Ray.
The workspace is the one that ``recap demo --quick`` makes; with ``--quick`` it is a smaller one of synthetic
steps, and the process a driver that asks for all of them (``noop_workspace`` says which).

``list_10000_s``: reading the list of 10,000 published steps with their manifests; ``summary_10000_s``:
without them. ``status_s``: a whole ``recap status`` on a workspace of these and 1,000 episodes, from outside.

Both sides of each comparison run in one go; medians. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from pipeline.workspace import Workspace
from tests.pipeline.episodes import TASK, make_frames, make_info, write_episode
from tests.workflows import sample_steps
from workflows.ledger import Ledger
from workflows.progress import LineDisplay
from workflows.step_recipe import Step
from workflows.step_store import MANIFEST, StepStore
from workflows.steps import StepRunner

LISTED = 10_000
EPISODES = 1_000


def small_step(seed: int) -> Step:
    """A step that writes one small file."""
    return Step("small", sample_steps.write_file, {"size": 1000}, seed=seed)


def silent(done: int, total: int, message: str = "") -> None:
    """Shows nothing."""


def timed(act: Callable[..., Any], *given: Any) -> float:
    """Seconds that ``act(*given)`` takes."""
    began = time.perf_counter()
    act(*given)
    return time.perf_counter() - began


def write_bare(root: Path, steps: list[Step]) -> None:
    """The steps' function alone, into folders that are there."""
    for step in steps:
        sample_steps.write_file(root / str(step.seed), size=1000, seed=step.seed or 0)


def publish(store: StepStore, steps: list[Step]) -> None:
    """The steps without Ray, in this process."""
    for step in steps:
        store.execute(store.call(step), silent)


def overheads(root: Path, count: int, repeats: int) -> dict[str, float]:
    """Milliseconds a step, beyond the bare function: all of it, and publication alone."""
    runs, publications = [], []
    workspace = Workspace(root / "overhead").create()
    with StepRunner(workspace, LineDisplay(io.StringIO()), num_cpus=2) as runner:
        runner.run_all([small_step(seed) for seed in (1, 2)])  # starts Ray and both workers
        for repeat in range(1, repeats + 1):
            steps = [small_step(repeat * 10_000 + k) for k in range(count)]
            for step in steps:
                (root / "bare" / str(step.seed)).mkdir(parents=True)
            bare = timed(write_bare, root / "bare", steps)
            ran = timed(runner.run_all, steps)
            published = timed(publish, StepStore(root / f"published-{repeat}"), steps)
            runs.append(1e3 * (ran - bare) / count)
            publications.append(1e3 * (published - bare) / count)
    return {
        "step_overhead_ms": round(statistics.median(runs), 2),
        "publish_ms": round(statistics.median(publications), 2),
    }


def make_listed(workspace: Workspace, count: int) -> None:
    """``count`` published steps as the store writes them, but not flushed one by one."""
    store = StepStore(workspace.steps)
    publish(store, [small_step(0)])
    (made,) = store.published()
    ledger = Ledger(workspace)
    ledger.set_base(made.name, made.key, "the first")
    ledger.record_iteration(1, made.key, {"reason": "kept base"})
    manifest = {**made.manifest, "name": "NAME", "key": "KEY", "finished": "FINISHED"}
    manifest["files"] = {f"checkpoint/part-{k}.bin": made.manifest["files"]["file.bin"] for k in range(6)}
    size = sum(facts["bytes"] for facts in manifest["files"].values())
    entry = {
        "name": "NAME",
        "key": "KEY",
        "seconds": 1.0,
        "finished": "FINISHED",
        "bytes": size,
        "run": "KEY",
    }
    texts = (json.dumps(manifest, indent=1), json.dumps(entry) + "\n")
    lines = []
    for number in range(count - 1):
        key = hashlib.sha256(str(number).encode()).hexdigest()[:32]
        name = ("evaluate", "train_value", "fine_tune_recap", "advantages")[number % 4]
        # Some of them are older than the iteration, some came after it.
        finished = made.manifest["finished"] if number % 10 == 0 else "2025-01-01T00:00:00+00:00"
        told, logged = (
            text.replace("NAME", name).replace("KEY", key).replace("FINISHED", finished) for text in texts
        )
        folder = workspace.steps / name / key
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(told)
        lines.append(logged)
    with (workspace.steps / "completions.jsonl").open("a") as log:
        log.writelines(lines)


def make_episodes(workspace: Workspace, count: int) -> None:
    """``count`` episodes of three frames, each with an id of its own."""
    first = workspace.episode_path(TASK, "episode-0000")
    write_episode(first, make_frames(3), make_info("episode-0000"))
    for number in range(1, count):
        path = first.with_name(f"episode-{number:04d}.h5")
        shutil.copyfile(first, path)
        with h5py.File(path, "r+", libver=("v108", "v108")) as file:
            file.attrs["id"] = path.stem


def listings(root: Path, repeats: int) -> dict[str, float]:
    """Seconds to list many steps, with and without manifests, and of a whole ``recap status``."""
    workspace = Workspace(root / "listed").create()
    make_listed(workspace, LISTED)
    make_episodes(workspace, EPISODES)
    store = StepStore(workspace.steps)
    assert len(store.published()) == len(store.listed()) == LISTED
    words = ["status", "--workspace", str(workspace.root)]
    recap(*words)  # opens the new episodes once, which the index then remembers
    return {
        f"list_{LISTED}_s": round(statistics.median(timed(store.published) for _ in range(repeats)), 3),
        f"summary_{LISTED}_s": round(statistics.median(timed(store.listed) for _ in range(repeats)), 3),
        "status_s": round(statistics.median(timed(recap, *words) for _ in range(repeats)), 3),
    }


def recap(*words: str) -> str:
    """One command in a process of its own; what it printed."""
    return run("-m", "workflows.cli", *words)


def run(*words: str) -> str:
    """This interpreter in a process of its own; what it printed. Raises where it failed."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{words}: {done.stderr}")
    return done.stdout


def noop(root: Path, quick: bool, repeats: int) -> dict[str, Any]:
    """Seconds of a whole process that finds all of a turn's steps done."""
    workspace = str(root / "finished")
    if quick:
        words = ["-m", "tests.workflows.kill_driver", workspace, "0"]
        run(*words)
        assert "computed 0 reused 4 ray False" in run(*words)
    else:
        words = ["-m", "workflows.cli", "improve", "--quick", "--workspace", workspace]
        recap("demo", "--quick", "--workspace", workspace)
        run(*words)
        same = f"from workflows.cli import main; main({words[2:]!r})"
        run("-c", f"import sys; {same}; assert 'ray' not in sys.modules")
    seconds = statistics.median(timed(run, *words) for _ in range(repeats))
    return {
        "noop_improve_s": round(seconds, 3),
        "noop_workspace": "synthetic steps" if quick else "recap demo --quick",
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer steps and repeats, a synthetic workspace")
    quick = parser.parse_args().quick
    repeats = 3 if quick else 5
    with tempfile.TemporaryDirectory(prefix="recap-steps-") as folder:
        root = Path(folder)
        figures = {
            **listings(root, repeats),
            **noop(root, quick, repeats),
            **overheads(root, 40 if quick else 200, repeats),
        }
    for name, value in figures.items():
        print(f"{name:<20}{value}")
    where = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({**figures, "listed": LISTED, "episodes": EPISODES, **where}))


if __name__ == "__main__":
    main()
