"""SIGTERM and SIGKILL of a tick and of its run, at any moment: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from pipeline.workspace import Workspace
from tests.workflows.schedule_samples import MINUTE, START, add
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Schedule
from workflows.schedule_store import ScheduleStore
from workflows.schedule_tick import Tick


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "lab").create()


def outcomes(store: ScheduleStore) -> list[str]:
    return [run.outcome for run in store.history()]


def test_a_tick_that_is_asked_to_stop_stops_its_run_and_the_next_continues_it(workspace: Workspace) -> None:
    store = add(workspace, "* * * * *", at=datetime.now(UTC) - 2 * MINUTE)
    words = [sys.executable, "-m", "workflows.cli", "schedule", "tick", "--workspace", str(workspace.root)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not _has_run(process.pid):
        time.sleep(0.01)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "test: was interrupted; the next tick continues it\n" in out
    assert [run.outcome for run in store.open_runs()] == ["begun"]
    # Changed meanwhile; what is continued is what was begun.
    store.define(Schedule("test", "0 0 1 1 *", options=("--quick",)), datetime.now(UTC), new=False)
    Tick(workspace).do()
    first = store.history()[0]
    assert first.outcome == "failed" and first.attempts == 2
    log = (workspace.root / first.as_started["log"]).read_text()
    assert "attempt 2: recap improve\n" in log


def _has_run(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any("workflows.schedule_child" in one.cmdline() for one in psutil.Process(pid).children())
    return False


def driver(root: Path, now: datetime, seconds: float) -> subprocess.Popen[bytes]:
    """A tick in a process of its own, whose runs take so many seconds."""
    words = ["tick", str(root), now.isoformat(), str(seconds)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.workflows.tick_driver", *words], stdout=subprocess.DEVNULL
    )


def test_nothing_is_lost_or_done_twice_whenever_ticks_and_runs_are_killed(workspace: Workspace) -> None:
    store = add(workspace, "1-4 12 * * *", missed="all")
    draw = random.Random(5)
    now = START + 10 * MINUTE
    for victim in ("tick", "run", "both", "tick", "tick", "run"):
        process = driver(workspace.root, now, 0.3)
        # Some are killed while they are loading, some while they decide, some while the run is at work.
        deadline = time.monotonic() + 30
        wanted = draw.choice([0, 1, 1])
        while not _workers(store) and wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))
        if victim != "tick":
            for worker in _workers(store):
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        if victim != "run":
            process.kill()
        process.wait(60)
    for _ in range(20):
        if all(run.final for run in store.history()) and store.history():
            break
        assert driver(workspace.root, now, 0.1).wait(60) == 0
    assert outcomes(store) == ["kept"] * 4
    lines = (workspace.root / "work.txt").read_text().split("\n")[:-1]
    assert sorted(line for line in lines if line.startswith("ends")) == sorted(
        f"ends {run.id}" for run in store.history()
    )
    assert not [line for line in lines if line.startswith("twice")]


def _workers(store: ScheduleStore) -> list[ProcessIdentity]:
    """The processes of runs that are at work now."""
    found = [run.worker() for run in store.open_runs() if run.attempts]
    return [worker for worker in found if worker is not None and worker.is_alive()]
