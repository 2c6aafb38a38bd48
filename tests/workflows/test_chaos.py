"""What the chaos benchmark rests on: that its comparison sees a difference, and that it counts and kills."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from tests.benchmarks.chaos_compare import differences, faults, published_twice
from tests.benchmarks.chaos_run import DRIVER, NODE, WORKER, Kill, plan, run
from tests.benchmarks.chaos_watch import Watch, manifest_seconds
from tests.workflows.sample_lab import add_episode, frozen, step
from workflows.ledger import Ledger
from workflows.step_recipe import StepAddress
from workflows.step_store import MANIFEST, StepStore


def make_lab(root: Path) -> Workspace:
    """Two episodes with labels, one step, a base, an iteration, a link."""
    workspace = Workspace(root).create()
    add_episode(workspace, "one")
    add_episode(workspace, "two")
    snapshot = frozen(workspace, ("one", "success", "A"), ("two", "failure", "A"))
    store, made = StepStore(workspace.steps), step("train_base", 1, snapshot=snapshot)
    store.execute(store.call(made), lambda *_: None)
    ledger = Ledger(workspace)
    ledger.set_base(made.name, made.key, "first")
    ledger.record_iteration(1, made.key, {"promoted": False})
    (result,) = store.published()
    ledger.record_steps(1, [result])
    workspace.reports.mkdir(exist_ok=True)
    (workspace.reports / "iteration-1.html").symlink_to("../steps")
    return workspace


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The one that others are compared with."""
    return make_lab(tmp_path_factory.mktemp("labs") / "lab")


def test_two_workspaces_of_the_same_work_are_equal_and_whole(lab: Workspace, tmp_path: Path) -> None:
    other = make_lab(tmp_path / "other")
    assert differences(lab, other) == []
    assert faults(other) == [] and published_twice(other) == 0


def change_label(workspace: Workspace) -> None:
    with LabelStore(workspace.labels_path) as store:
        store.set("one", "failure", "B")


def change_file(workspace: Workspace) -> None:
    (manifest,) = workspace.steps.glob(f"*/*/{MANIFEST}")
    facts = json.loads(manifest.read_text())
    next(iter(facts["files"].values()))["sha256"] = "0" * 64
    manifest.write_text(json.dumps(facts))


def change_result(workspace: Workspace) -> None:
    (manifest,) = workspace.steps.glob(f"*/*/{MANIFEST}")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "result": {"loss": 1.5}}))


def change_link(workspace: Workspace) -> None:
    (workspace.reports / "iteration-1.html").unlink()


def change_ledger(workspace: Workspace) -> None:
    Ledger(workspace).record_iteration(1, Ledger(workspace).iterations()[0].candidate, {"promoted": True})


def change_episode(workspace: Workspace) -> None:
    path = sorted(workspace.episodes.rglob("*.h5"))[0]
    with h5py.File(path, "r+") as file:
        found: list[str] = []
        file.visit(found.append)
        name = next(n for n in found if isinstance(file[n], h5py.Dataset) and file[n].dtype.kind == "f")
        file[name][-1] += 0.5


def add_step(workspace: Workspace) -> None:
    store, made = StepStore(workspace.steps), step("other", 2)
    store.execute(store.call(made), lambda *_: None)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (change_label, "labels"),
        (change_file, "published steps"),
        (change_result, "published steps"),
        (change_link, "links"),
        (change_ledger, "ledger"),
        (change_episode, "episodes"),
        (add_step, "published steps"),
    ],
)
def test_every_difference_is_seen(
    lab: Workspace, tmp_path: Path, change: Callable[[Workspace], None], what: str
) -> None:
    shutil.copytree(lab.root, tmp_path / "copy", symlinks=True)
    other = Workspace(tmp_path / "copy")
    assert differences(lab, other) == []
    change(other)
    found = differences(lab, other)
    assert found and all(line.startswith(f"{what}: ") for line in found)


def test_leftovers_damage_and_work_that_was_published_twice_are_seen(lab: Workspace, tmp_path: Path) -> None:
    shutil.copytree(lab.root, tmp_path / "copy", symlinks=True)
    other = Workspace(tmp_path / "copy")
    (other.steps / ".resume").mkdir(exist_ok=True)
    (other.steps / ".resume" / "abc.safetensors").touch()
    (file,) = [path for path in other.steps.glob("train_base/*/*") if path.name != MANIFEST]
    file.write_bytes(b"")
    log = other.steps / "completions.jsonl"
    log.write_text(log.read_text() * 2)
    assert [line.split(":")[0] for line in faults(other)] == ["damaged", "left over"]
    assert published_twice(other) == 1


def test_kills_of_every_kind_are_spread_over_the_work_and_follow_from_the_seed() -> None:
    planned = plan(50, 900.0, seed=3)
    assert planned == plan(50, 900.0, seed=3) != plan(50, 900.0, seed=4)
    kinds = [kill.kind for kill in planned]
    assert {kind: kinds.count(kind) for kind in (DRIVER, WORKER, NODE)} == {DRIVER: 20, WORKER: 20, NODE: 10}
    assert 600 < sum(kill.after_s for kill in planned if not kill.early) < 1000
    assert any(kill.early for kill in planned)
    assert {kill.kind for kill in plan(6, 60.0, seed=0)} == {DRIVER, WORKER, NODE}


def test_a_driver_and_its_workers_are_killed_and_what_they_did_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    # Three steps of two seconds on two cores, and one that needs them all.
    words = [sys.executable, "-m", "tests.workflows.kill_driver", str(root), "2.0"]
    planned = [Kill(WORKER, 0.5), Kill(DRIVER, 1.0), Kill(WORKER, 0.7, pick=0.9)]
    began = time.monotonic()
    with Watch(root / "steps", tmp_path / "attempts.jsonl") as watch:
        told = run(words, watch, planned, None, tmp_path / "log")
    assert told.kills == {DRIVER: 1, WORKER: 2}
    assert told.starts == 2 and told.failures == []
    workspace = Workspace(root)
    assert faults(workspace) == [] and published_twice(workspace) == 0
    published = manifest_seconds(workspace.steps)
    assert published > 6.0
    # Each of the kills cost something: at least the half second that a worker had been at it.
    assert watch.attempts_s > published + 1.0
    assert watch.attempts_s <= 2 * watch.busy_s + 1.0 <= 2 * (time.monotonic() - began)
    # The steps sleep, mostly.
    assert watch.work_s < watch.attempts_s
    logged = [json.loads(line) for line in (tmp_path / "attempts.jsonl").read_text().splitlines()]
    assert (
        len(logged) == len(watch.attempts) >= 4 + 1
    )  # a worker may be killed before a look found it at work


def test_work_is_the_time_of_a_core_that_the_holder_of_the_lock_has_had(tmp_path: Path) -> None:
    store, address = StepStore(tmp_path), StepAddress("work", "0" * 32)
    store.path(address).with_name(f".{address.key}.run.partial").mkdir(parents=True)
    script = (
        "import sys, time; from pathlib import Path; from pipeline.file_lock import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    began = time.process_time()\n"
        "    while time.process_time() < began + 1.0: pass\n"
        "    time.sleep(1.0)\n"
    )
    with Watch(tmp_path, tmp_path / "attempts.jsonl") as watch:
        subprocess.run([sys.executable, "-c", script, str(store.lock_path(address))], check=True)
    (attempt,) = watch.attempts
    assert (attempt.name, attempt.key, attempt.run) == ("work", address.key, "run")
    assert 0.5 < attempt.work_s < 1.3 < attempt.seconds
