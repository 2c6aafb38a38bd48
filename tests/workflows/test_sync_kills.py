"""Push and pull that end in the middle: nothing is half there, and the next run does the rest."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from tests.workflows import sample_steps
from tests.workflows.object_stores import bucket, credentials, require_sound, require_whole, stored_files
from tests.workflows.sample_lab import SampleLab, make_lab
from workflows.remote_sync import Sync
from workflows.step_recipe import Step

__all__ = ["bucket"]


@pytest.fixture
def lab(tmp_path: Path) -> SampleLab:
    """With steps of several files, small and large."""
    made = make_lab(tmp_path / "lab")
    made.turn(promoted=True)
    steps = [Step("noise", sample_steps.write_noise, {"size": 20_000}, seed=seed) for seed in range(20)]
    made.publish(*steps)
    return made


def start(direction: str, root: Path, url: str, limit: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.workflows.sync_process", direction, str(root), url, str(limit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **credentials()},
    )


def kill_after(direction: str, root: Path, url: str, seconds: float) -> bool:
    """Starts one and kills it so long after it is ready; ``False`` if it had ended by itself."""
    process = start(direction, root, url)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    killed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return killed


def test_a_push_that_is_killed_leaves_a_store_that_works(lab: SampleLab, bucket: str, tmp_path: Path) -> None:
    store, rng = ObjectStore(bucket), random.Random(1)
    killed, counts = 0, []
    for _ in range(3):
        killed += kill_after("push", lab.workspace.root, bucket, rng.uniform(0.02, 0.25))
        counts.append(require_sound(store))
    assert killed and counts == sorted(counts)
    # Whatever is there can be used: its databases name nothing that it lacks.
    if list(store.listing("recap.json")) or counts[-1]:
        assert Sync(Workspace(tmp_path / "early"), store).pull().faults == []

    assert Sync(lab.workspace, store).push().faults == []
    assert Sync(Workspace(tmp_path / "there"), store).pull().faults == []
    assert stored_files(tmp_path / "there") == stored_files(lab.workspace.root)


def test_a_pull_that_is_killed_leaves_a_workspace_that_works(
    lab: SampleLab, bucket: str, tmp_path: Path
) -> None:
    store, rng, there = ObjectStore(bucket), random.Random(2), tmp_path / "there"
    Sync(lab.workspace, store).push()
    killed, counts = 0, []
    for _ in range(3):
        killed += kill_after("pull", there, bucket, rng.uniform(0.02, 0.25))
        counts.append(require_whole(there))
        if (there / "runs.sqlite").exists():
            assert counts[-1] == len(lab.store.published())
    assert killed and counts == sorted(counts)

    assert Sync(Workspace(there), store).pull().faults == []
    assert stored_files(there) == stored_files(lab.workspace.root)
    assert not list((there / "steps").rglob("*.partial")) and not list(there.rglob("*.part"))
    assert require_whole(there) == len(lab.store.published())


def test_a_full_disk_is_one_line_and_what_has_arrived_stays(
    lab: SampleLab, bucket: str, tmp_path: Path
) -> None:
    store, there = ObjectStore(bucket), tmp_path / "there"
    Sync(lab.workspace, store).push()
    # No file may be larger than this: what happens then is what happens on a full disk.
    process = start("pull", there, bucket, 60_000)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(said.splitlines()) == 1 and f"the disk of {there} is full" in said
    assert require_whole(there) < len(lab.store.published())
    assert not list((there / "steps").rglob("*.partial")) and not list(there.rglob("*.part"))
    assert not (there / "runs.sqlite").exists()

    assert Sync(Workspace(there), store).pull().faults == []
    assert stored_files(there) == stored_files(lab.workspace.root)
