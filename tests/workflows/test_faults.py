"""What goes wrong by itself: each fault is named and isolated, nothing is lost, and the champion stays.

Through the entry point of ``recap improve``; its steps run in the worker processes of one Ray. In each case
the same command succeeds when the cause is mended.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.workspace import Workspace
from tests.workflows.faults_lab import IMPROVE, Lab, copy_lab, fill, original_lab, small_disk
from workflows.local_ray import local_ray
from workflows.step_faults import PAUSES_S
from workflows.step_files import ADVANTAGES_FILE


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray for all tests that compute steps: a start of it and its workers takes longer than they do."""
    with local_ray(2):
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A turn that went well."""
    return original_lab(tmp_path_factory)


@pytest.fixture
def lab(original: Lab, tmp_path: Path) -> Lab:
    """A copy of its own."""
    return copy_lab(original, tmp_path / "lab")


@pytest.mark.usefixtures("ray_here")
def test_a_full_disk(original: Lab, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "160m") as disk:
        lab = copy_lab(original, disk / "lab")
        lab.forget("report")
        before, steps = lab.history(), lab.steps()
        filler = fill(disk)
        stopped = lab.improve()
        assert stopped.status == 1 and "No space left on device" in stopped.error
        assert lab.run("status").status == 0
        filler.unlink()
        assert lab.history() == before and lab.steps() == steps
        assert lab.improve().status == 0
        assert lab.history() == before and lab.steps().keys() > steps.keys()


def flip(path: Path) -> None:
    """Changes one bit in the middle of a file."""
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))


def cut(path: Path) -> None:
    """Leaves half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def base_weights(lab: Lab) -> Path:
    """The largest file of the base policy, which is the champion."""
    return max(lab.step("train_base").path.rglob("*"), key=lambda path: path.stat().st_size)


def manifest(lab: Lab) -> Path:
    """What says what the advantages came from."""
    return lab.step("advantages").path / "manifest.json"


def advantages(lab: Lab) -> Path:
    """Arrays that the dataset is conditioned on."""
    return lab.step("advantages").path / ADVANTAGES_FILE


def evaluation(lab: Lab) -> Path:
    """What one policy did on its starts."""
    return next(lab.step("evaluate").path.glob("*.json*"))


def gate(lab: Lab) -> Path:
    """What the gate found."""
    return next(path for path in lab.step("judge_values").path.glob("*.json") if path.name != "manifest.json")


@pytest.mark.parametrize(
    ("damage", "artefact", "again", "status", "seen"),
    [
        (flip, base_weights, [], 2, True),
        (cut, base_weights, [], 2, True),
        (Path.unlink, base_weights, [], 2, True),
        (cut, manifest, [], 2, True),
        (cut, gate, [], 2, False),
        (cut, advantages, ["conditioned_dataset", "report"], 2, False),
    ],
)
def test_a_corrupt_artefact(
    lab: Lab,
    damage: Callable[[Path], None],
    artefact: Callable[[Lab], Path],
    again: list[str],
    status: int,
    seen: bool,
    request: pytest.FixtureRequest,
) -> None:
    if again:
        request.getfixturevalue("ray_here")
    path = artefact(lab)
    lab.forget(*again)
    before, whole = lab.history(), path.read_bytes()
    published = {step.path for step in lab.store.published()}
    damage(path)
    stopped = lab.improve()
    assert stopped.status == status and path.name in stopped.error, stopped.error
    assert str(path.parent) in stopped.error
    assert lab.history() == before
    assert seen == (str(path) in lab.run("status").out)
    if artefact is base_weights:
        refused = lab.run("rollout", "--episodes", "1")
        assert refused.status == 2 and str(path) in refused.error
    path.write_bytes(whole)
    assert {step.path for step in lab.store.published()} == published
    assert lab.improve().status == 0
    assert lab.history() == before


def test_a_missing_episode(lab: Lab) -> None:
    before, steps = lab.history(), lab.steps()
    failure = next(event.episode_id for event in before.labels if event.outcome == "failure")
    path = next(lab.workspace.episodes.rglob(f"{failure}.h5"))
    aside = path.rename(lab.root / "aside.h5")
    stopped = lab.run_apart(*IMPROVE)
    assert stopped.status == 2 and "no episode is labelled failure" in stopped.error
    assert f"episode {failure} is gone from " in stopped.err
    assert f"problem: episode {failure} is gone from " in lab.run("status").out
    assert "3 episodes (1 gone)" in lab.run("status", "--lineage").out
    aside.rename(path)
    assert lab.history() == before and lab.steps() == steps
    assert lab.improve().status == 0 and lab.history() == before


@pytest.mark.parametrize("poison", [b"", b"garbage" * 1000, b"SQLite format 3\0" + bytes(4096)])
def test_a_poisoned_label_store(lab: Lab, poison: bytes) -> None:
    before = lab.history()
    path = lab.workspace.labels_path
    whole = path.read_bytes()
    path.write_bytes(poison)
    stopped = lab.improve()
    assert stopped.status == 2 and str(path) in stopped.error
    status = lab.run("status").out
    assert f"problem: {stopped.error}" in status and "waiting for people: not known" in status
    path.write_bytes(whole)
    assert lab.history() == before
    assert lab.improve().status == 0 and lab.history() == before


def other_labels(path: Path) -> None:
    """A snapshot that is whole, and of other labels."""
    from pipeline.label_snapshot import freeze
    from pipeline.labels import LabelStore

    workspace = Workspace(path.parents[1])
    entries = workspace.list_episodes()
    with LabelStore(path.parents[1] / "others.sqlite") as labels:
        labels.sync((entry.id, entry.info.task) for entry in entries)
        for entry in entries:
            labels.set(entry.id, "success", "mallory")
        frozen = freeze(labels, entries, path.parents[1] / "others")
    shutil.copy(frozen.path, path)


def fewer_rows(path: Path) -> None:
    """A snapshot whose rows are not those of its digest."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    pq.write_table(table.slice(0, table.num_rows - 1), path)


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("poison", [cut, other_labels, fewer_rows])
def test_a_poisoned_snapshot(lab: Lab, poison: Callable[[Path], None]) -> None:
    lab.forget("report")
    before, steps = lab.history(), lab.steps()
    digest = lab.step("advantages").manifest["inputs"]["snapshot"].removeprefix("external:")
    path = lab.root / "snapshots" / f"labels-{digest[:16]}.parquet"
    whole = path.read_bytes()
    poison(path)
    stopped = lab.improve()
    assert stopped.status == 2 and str(path) in stopped.error
    assert lab.history() == before and lab.steps() == steps
    path.write_bytes(whole)
    assert lab.improve().status == 0 and lab.history() == before


LINES = {
    "a formula": ('{id},=cmd|"/c calc"!A1', "outcome"),
    "a page": ("{id},<script>alert(1)</script>", "outcome"),
    "a command": ("'; DROP TABLE label_events; --,success", "there is no episode"),
    "an unknown episode": ("nobody-knows-it,success", "there is no episode 'nobody-knows-it'"),
    "ten megabytes": ("{id},success," + "x" * 10_000_000, "field larger than"),
}


@pytest.mark.parametrize("poison", LINES)
def test_a_poisoned_label_file(lab: Lab, tmp_path: Path, poison: str) -> None:
    before = lab.history()
    line, said = LINES[poison]
    first, second, _ = sorted(path.stem for path in lab.workspace.episodes.rglob("*.h5"))
    file = tmp_path / "labels.csv"
    good = f"{second},success,\n"
    file.write_text("episode_id,outcome,note\n" + good + line.replace("{id}", first) + "\n")
    words = ("label", "import", str(file), "--annotator", "ben")
    refused = lab.run(*words)
    assert refused.status == 2 and str(file) in refused.error
    assert said in refused.out + refused.err and len(refused.out + refused.err) < 2000
    assert lab.history() == before
    file.write_text("episode_id,outcome,note\n" + good)
    taken = lab.run(*words)
    assert taken.status == 0, taken.err
    after = lab.history()
    assert len(after.labels) == len(before.labels) + 1
    assert (after.champions, after.iterations) == (before.champions, before.iterations)


@pytest.mark.usefixtures("ray_here")
def test_a_step_that_always_fails_is_named_tried_as_often_as_stated_and_isolated(lab: Lab) -> None:
    """A file of its input gives an I/O error whenever it is read, as a failing disk does."""
    lab.forget("conditioned_dataset", "report")
    other = lab.step("evaluate")
    shutil.rmtree(other.path)
    before, steps = lab.history(), lab.steps()
    path = advantages(lab)
    aside = path.rename(lab.root / "aside.npz")
    path.symlink_to("/proc/self/mem")
    began = time.monotonic()
    stopped = lab.improve()
    assert time.monotonic() - began > sum(PAUSES_S)
    assert stopped.status == 1
    assert stopped.error.startswith("step conditioned_dataset failed: OSError: [Errno 5] Input/output error")
    assert f"(tried {len(PAUSES_S) + 1} times)" in stopped.error
    path.unlink()
    aside.rename(path)
    assert lab.history() == before
    # The evaluation needs no advantages: it was finished while the other was tried, or given up whole.
    assert lab.steps().keys() - steps.keys() <= {f"evaluate/{other.key}"}
    assert lab.improve().status == 0
    assert lab.history() == before and f"evaluate/{other.key}" in lab.steps()
    completed = [(line["name"], line["key"]) for line in lab.store.completions()]
    assert completed.count(("evaluate", other.key)) == 2, "once before it was taken away, once since"


def test_a_lost_ledger_is_no_new_lab_and_can_be_rebuilt(lab: Lab) -> None:
    before, steps = lab.history(), lab.steps()
    path = lab.workspace.ledger_path
    aside = path.rename(lab.root / "aside.sqlite")
    for words in (IMPROVE, ("rollout", "--episodes", "1"), ("gc", "--yes"), ("rollback", "--yes")):
        stopped = lab.run(*words)
        assert stopped.status == 2 and f"{path} is missing or empty, but there were turns" in stopped.error
    assert not path.exists() and lab.steps() == steps
    planned = lab.run("rollback", "--rebuild")
    assert planned.status == 0 and "nothing was written" in planned.out and not path.exists()
    assert lab.run("rollback", "--rebuild", "--yes").status == 0
    rebuilt = lab.history()
    assert [(c.name, c.key, c.iteration) for c in rebuilt.champions] == [
        (c.name, c.key, c.iteration) for c in before.champions
    ]
    for old, new in zip(before.iterations, rebuilt.iterations, strict=True):
        assert (old.n, old.candidate) == (new.n, new.candidate)
        kept = {
            name: old.summary[name]
            for name in ("promoted", "reason", "report", "performances", "values_passed")
        }
        assert json.loads(json.dumps(new.summary)) | kept == new.summary
    assert lab.run("rollback", "--rebuild", "--yes").status == 2
    assert lab.improve().status == 0
    assert lab.run("gc").status == 0
    aside.replace(path)
    assert lab.history() == before
