"""A workspace in which a whole turn of the loop was run, as small as it can be, for faults to be put into."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.file_lock import locked
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from workflows.cli import main
from workflows.ledger import Champion, Iteration, Ledger
from workflows.step_store import StepResult, StepStore

TASK = "pick up the red cube"
IMPROVE = ("improve", "--quick", "--policy-steps", "2", "--value-steps", "2", "--starts", "2")
OUTCOMES = ("success", "failure", "success")


@dataclass(frozen=True)
class Said:
    """How a command ended: its exit status, and what it said on standard output and standard error."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what is wrong; fails the test where there is none, or several."""
        lines = [line for line in self.err.splitlines() if line.startswith("recap: error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err + self.out
        return lines[0].removeprefix("recap: error: ")


@dataclass(frozen=True)
class History:
    """What no fault may change: who was champion, the iterations, everything that was said of episodes."""

    champions: list[Champion]
    iterations: list[Iteration]
    labels: list[Any]


@dataclass(frozen=True)
class Lab:
    """One copy of the workspace."""

    workspace: Workspace

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self.workspace.root

    @property
    def store(self) -> StepStore:
        """Its steps."""
        return StepStore(self.workspace.steps)

    def run(self, *words: str) -> Said:
        """Runs ``recap`` by its entry point, in this process, which is many times faster."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main([*words, "--workspace", str(self.root)])
        return Said(status, out.getvalue(), err.getvalue())

    def run_apart(self, *words: str) -> Said:
        """Runs ``recap`` in a process of its own, in which warnings reach standard error as for a person."""
        command = [sys.executable, "-m", "workflows.cli", *words, "--workspace", str(self.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    def improve(self) -> Said:
        """The turn again."""
        return self.run(*IMPROVE)

    def step(self, name: str) -> StepResult:
        """The last published step of a name, by key."""
        return self.store.published(name)[-1]

    def forget(self, *names: str) -> None:
        """Takes published steps away, so that the turn has to compute them again."""
        for name in names:
            for step in self.store.published(name):
                shutil.rmtree(step.path)

    def history(self) -> History:
        """What may not change."""
        ledger = Ledger(self.workspace)
        with LabelStore(self.workspace.labels_path) as labels:
            return History(ledger.champions(), ledger.iterations(), labels.events())

    def steps(self) -> dict[str, dict[str, Any]]:
        """Every published step with what its manifest says of its files; each is whole."""
        published = self.store.published()
        assert [damage for step in published for damage in self.store.verify(step)] == []
        return {f"{step.name}/{step.key}": step.manifest["files"] for step in published}


def original_lab(shared: pytest.TempPathFactory) -> Lab:
    """The workspace that the copies are of; made once, however many processes run these tests."""
    base = shared.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "faults" / "lab"
    done = root.with_name("done")
    with locked(root.with_name("lock")):
        if not done.exists():
            _make(Lab(Workspace(root)))
            done.touch()
    return Lab(Workspace(root))


def _make(lab: Lab) -> None:
    recorded = lab.run("record", "--task", TASK, "--episodes", str(len(OUTCOMES)))
    assert recorded.status == 0, recorded.err
    entries = lab.workspace.list_episodes()
    with LabelStore(lab.workspace.labels_path) as labels:
        labels.sync((entry.id, entry.info.task) for entry in entries)
        for entry, outcome in zip(entries, OUTCOMES, strict=True):
            labels.set(entry.id, outcome, "ana")
    turned = lab.improve()
    assert turned.status == 0, turned.err


def copy_lab(original: Lab, root: Path) -> Lab:
    """A copy with files of its own."""
    subprocess.run(["cp", "-a", str(original.root), str(root)], check=True)
    return Lab(Workspace(root))


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own at ``place``; skips the test where none can be mounted."""
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leaves no byte free on a small disk; returns the file to remove."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (2**20, 2**12, 1):
            try:
                while stream.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return filler
