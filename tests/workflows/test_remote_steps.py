"""Workers with disks of their own: inputs come from the store, results go there; the driver finds them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Failure, InputError
from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from tests.pipeline.episodes import make_frames, write_episode
from tests.workflows import remote_samples
from tests.workflows.object_stores import bucket, credentials, require_whole
from tests.workflows.sample_lab import SampleLab, frozen, make_lab, step
from workflows.remote_steps import NODE_WORKSPACE, RemoteWorkspace, remote_of
from workflows.remote_sync import Sync
from workflows.step_recipe import ExternalInput, Step, StepAddress, content_digest
from workflows.step_store import StepStore

__all__ = ["bucket"]


@pytest.fixture
def lab(tmp_path: Path, bucket: str) -> SampleLab:
    made = make_lab(tmp_path / "lab")
    made.workspace.config_path.write_text(f'[remote]\nurl = "{bucket}"\n')
    return made


def remote_of_lab(lab: SampleLab) -> RemoteWorkspace:
    found = remote_of(lab.workspace)
    assert found is not None
    return found


def reading_step(lab: SampleLab, *bases: Step) -> Step:
    snapshot = frozen(lab.workspace)
    return Step(
        "count",
        remote_samples.count_frames,
        inputs={
            "workspace": ExternalInput(lab.workspace.root, "workspace"),
            "snapshot": ExternalInput(snapshot.path, snapshot.digest),
            "bases": list(bases),
        },
    )


def workers(lab: SampleLab, wanted: Step, nodes: list[Path], tmp_path: Path) -> list[str]:
    """Starts a worker for the step on each of these machines, at the same time; what they said."""
    place = tmp_path / "call"
    # As Ray does: the call and the remote travel as pickles, from the driver, not from a store.
    place.write_bytes(pickle.dumps((remote_of_lab(lab), lab.store.call(wanted))))
    command = [sys.executable, "-m", "tests.workflows.remote_samples", "work", str(place)]
    running = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **credentials(), NODE_WORKSPACE: str(node)},
        )
        for node in nodes
    ]
    said = []
    for process in running:
        out, problem = process.communicate(timeout=120)
        assert process.returncode == 0, problem
        said.append(out.strip())
    return said


def test_a_step_is_computed_on_a_machine_without_the_drivers_disk(lab: SampleLab, tmp_path: Path) -> None:
    remote, node = remote_of_lab(lab), tmp_path / "node"
    wanted = reading_step(lab, lab.base)
    assert not remote.fetch(wanted)
    with remote.driving():
        # Frozen when the driver was at work already, as the loop does it.
        wanted = reading_step(lab, lab.base)
        remote.offer(wanted)

    (said,) = workers(lab, wanted, [node], tmp_path)

    assert said == f"True {node}/steps"
    # What it needed is there, and nothing else of the lab's.
    assert sorted(path.name for path in (node / "episodes").glob("*/*")) == ["demo-0.h5", "demo-1.h5"]
    assert sorted(str(one) for one in StepStore(node / "steps").addresses()) == sorted(
        [f"count/{wanted.key}", f"train_base/{lab.base.key}"]
    )
    assert lab.store.find(wanted) is None
    assert remote.fetch(wanted)
    found = lab.store.find(wanted)
    assert found is not None and lab.store.verify(found) == []
    assert found.result["rows"] == 2 and found.result["tasks"][0] == "[remote]"
    assert not (node / "runs.sqlite").exists() and not (node / "labels.sqlite").exists()
    # Again: nothing is asked for, nothing is computed.
    remote.offer(wanted)
    assert remote.fetch(wanted)
    assert workers(lab, wanted, [node], tmp_path) == [f"False {node}/steps"]


def test_workers_of_one_machine_fetch_each_thing_once_and_of_two_both_agree(
    lab: SampleLab, tmp_path: Path
) -> None:
    remote, one, two = remote_of_lab(lab), tmp_path / "one", tmp_path / "two"
    bases = [step("train_base", seed) for seed in range(3)]
    lab.publish(*bases)
    wanted = reading_step(lab, *bases)
    with remote.driving():
        remote.offer(wanted)
        said = workers(lab, wanted, [one, one, two], tmp_path)

    # On one machine the second waits for the first and finds the work done.
    assert sorted(said[:2]) == [f"False {one}/steps", f"True {one}/steps"]
    for node in (one, two):
        assert require_whole(node) == 4
        lines = StepStore(node / "steps").completions()
        assert len(lines) == len({(line["name"], line["key"]) for line in lines}) == 4
        assert not list(node.rglob("*.part")) and not list(node.rglob("*.partial"))
    assert remote.fetch(wanted)
    results = [(root / "steps" / "count" / wanted.key / "sizes.txt").read_text() for root in (one, two)]
    assert results[0] == results[1] == (lab.store.path(wanted) / "sizes.txt").read_text()


def record_again(lab: SampleLab, frames: int) -> Path:
    """Another recording in place of the first demonstration."""
    entry = lab.workspace.find("demo-0")
    entry.path.unlink()
    return write_episode(entry.path, make_frames(frames), entry.info)


def test_a_worker_reads_the_recording_that_the_snapshot_names(
    lab: SampleLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, node = remote_of_lab(lab), tmp_path / "node"
    monkeypatch.setenv(NODE_WORKSPACE, str(node))
    calls, recordings = [], []
    with remote.driving():
        for frames in (0, 7, 9):
            path = record_again(lab, frames) if frames else lab.workspace.find("demo-0").path
            wanted = reading_step(lab)
            # While it drives: sent with the step, not by a push.
            remote.offer(wanted)
            calls.append(lab.store.call(wanted))
            recordings.append(content_digest(path))
            remote.bring(calls[-1])
            there = node / path.relative_to(lab.workspace.root)
            assert content_digest(there) == recordings[-1]
    assert len(set(recordings)) == 3
    # A step of an earlier snapshot is given what that was frozen with, which the store has kept.
    remote.bring(calls[0])
    assert content_digest(there) == recordings[0]
    # Where a person works, nothing is replaced by something older.
    monkeypatch.delenv(NODE_WORKSPACE)
    remote.bring(calls[0])
    assert content_digest(path) == recordings[-1]
    # What nobody has sent is named.
    record_again(lab, 11)
    unsent = lab.store.call(reading_step(lab))
    Sync(lab.workspace, ObjectStore(remote.url), ["labels"]).push()
    monkeypatch.setenv(NODE_WORKSPACE, str(node))
    with pytest.raises(Failure, match=r"lacks episodes/.*/demo-0\.h5 as labels-.* names it"):
        remote.bring(unsent)


def test_a_worker_has_the_settings_of_today(
    lab: SampleLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, node = remote_of_lab(lab), tmp_path / "node"
    monkeypatch.setenv(NODE_WORKSPACE, str(node))
    wanted = reading_step(lab)
    for gib in (50, 5):
        settings = f'[remote]\nurl = "{remote.url}"\n[cache]\nmax_gib = {gib}\n'
        lab.workspace.config_path.write_text(settings)
        with remote.driving():
            remote.offer(wanted)
            remote.bring(lab.store.call(wanted))
        assert (node / "recap.toml").read_text() == settings


def test_episodes_that_a_worker_recorded_come_to_the_driver(lab: SampleLab, tmp_path: Path) -> None:
    remote = remote_of_lab(lab)
    wanted = Step(
        "record",
        remote_samples.record_two,
        {"prefix": "far"},
        {"workspace": ExternalInput(lab.workspace.root, "workspace")},
    )
    remote.offer(wanted)
    workers(lab, wanted, [tmp_path / "node"], tmp_path)
    assert remote.fetch(wanted)
    here = {entry.id for entry in lab.workspace.list_episodes()}
    assert here == {"demo-0", "demo-1", "far-0", "far-1"}
    # One that is lost here is fetched again.
    (lost,) = lab.workspace.episodes.glob("*/far-1.h5")
    lost.unlink()
    assert remote.fetch(wanted) and lost.exists()


def test_what_the_store_lacks_is_one_line(
    lab: SampleLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = remote_of_lab(lab)
    wanted = reading_step(lab, lab.base)
    call = lab.store.call(wanted)
    monkeypatch.setenv(NODE_WORKSPACE, str(tmp_path / "node"))
    with pytest.raises(Failure, match=f"lacks (snapshots/labels-|the step train_base/{lab.base.key})"):
        remote.bring(call)
    monkeypatch.delenv(NODE_WORKSPACE)
    # Where the driver's disk is there after all, nothing is needed.
    assert remote.bring(call) == call
    outside = tmp_path / "outside"
    other = Step(
        "total", remote_samples.record_two, {"prefix": "x"}, {"workspace": ExternalInput(outside, "o")}
    )
    with pytest.raises(InputError, match="put it on every machine"):
        remote.bring(lab.store.call(other))


def test_a_workspace_without_a_remote_has_none_and_imports_little(tmp_path: Path) -> None:
    assert remote_of(Workspace(tmp_path)) is None
    code = (
        "import sys; from pathlib import Path; from pipeline.workspace import Workspace; "
        "from workflows.remote_config import remote_section; "
        f"print(remote_section(Workspace(Path({str(tmp_path)!r}))).url, 'obstore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_what_is_sent_twice_is_there_once(lab: SampleLab) -> None:
    remote = remote_of_lab(lab)
    wanted = reading_step(lab, lab.base)
    with remote.driving():
        remote.offer(wanted)
        lab.publish(wanted)
        remote.send(lab.store.call(wanted))
        remote.send(lab.store.call(wanted))
    store = ObjectStore(remote.url)
    objects: list[Any] = list(store.listing(f"steps/count/{wanted.key}.json"))
    listed = [one.path for one in store.listing("steps/count")]
    assert listed == [f"steps/count/{wanted.key}.json"] and objects is not None
    assert StepAddress("count", wanted.key) in lab.store.addresses()
    # At the driver's end everything is in the store.
    assert store.exists("databases/labels.sqlite") and store.exists("databases/runs.sqlite")
