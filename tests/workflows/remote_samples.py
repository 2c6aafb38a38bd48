"""Steps and processes of a workspace that is in a store: what a worker on another machine does."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.label_snapshot import read_snapshot
from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from tests.workflows.sample_lab import add_episode
from workflows.remote_driver import driving
from workflows.step_store import StepStore


def count_frames(out: Path, *, workspace: Path, snapshot: Path, bases: list[Path]) -> dict[str, Any]:
    """Reads every episode of the snapshot, and a file of each base."""
    store = Workspace(workspace)
    rows = read_snapshot(snapshot)
    read = [store.episode_path(row.task, row.episode_id).stat().st_size for row in rows]
    (out / "sizes.txt").write_text(f"{read} {[len((base / 'file.bin').read_bytes()) for base in bases]}")
    return {"rows": len(rows), "tasks": list(store.config_path.read_text().splitlines())}


def record_two(out: Path, *, workspace: Path, prefix: str) -> dict[str, Any]:
    """Records two episodes into the workspace."""
    ids = [f"{prefix}-{number}" for number in range(2)]
    for episode_id in ids:
        add_episode(Workspace(workspace), episode_id)
    return {"episodes": ids}


def work(place: Path) -> None:
    """A worker on a machine of its own: does the call that lies at ``place`` (written by the test)."""
    remote, call = pickle.loads(place.read_bytes())
    brought = remote.bring(call)
    computed = StepStore(brought.steps).execute(brought, lambda *_: None)
    remote.send(brought)
    print(computed, brought.steps)


def drive(root: Path, url: str, lease_s: float) -> None:
    """A driver that works until it is killed."""
    with driving(Workspace(root), ObjectStore(url), lease_s):
        print("driving", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(Path(sys.argv[2]))
    else:
        drive(Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
