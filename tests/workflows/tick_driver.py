"""A process that ticks once at a given time, and the process of its runs: for tests that kill them.

``python -m tests.workflows.tick_driver tick ROOT TIME SECONDS`` ticks; each run takes so many seconds in a
process of its own, which writes to ``work.txt`` when it begins and ends, and notices if it is not alone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from pipeline.file_lock import locked
from pipeline.workspace import Workspace
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Kind, Run
from workflows.schedule_outside import Outside
from workflows.schedule_store import ScheduleStore
from workflows.schedule_tick import Tick


def tick(root: Path, now: str, seconds: str) -> int:
    """Ticks once, and waits for what it begins."""

    def run(root: Path, run: Run, attempt: int, log: Path) -> int:
        words = ["work", str(root), now, seconds, str(run.id), str(attempt)]
        return subprocess.run([sys.executable, "-m", __spec__.name, *words], check=False).returncode

    report = Tick(Workspace(root), Outside(now=lambda: datetime.fromisoformat(now), run=run)).do()
    print("\n".join(report.lines))
    return 0


def work(root: Path, now: str, seconds: str, run_id: str, attempt: str) -> int:
    """Does one attempt."""
    store, at = ScheduleStore(root), datetime.fromisoformat(now)
    if not store.register(int(run_id), int(attempt), at, {}, ProcessIdentity.mine()):
        return 75
    try:
        with locked(root / "work.lock", wait=False):
            _write(root, f"begins {run_id}")
            time.sleep(float(seconds))
            document = {"outcome": "kept", "reason": "it was slept"}
            if store.note(int(run_id), Kind.ENDED, at, document, attempt=int(attempt)):
                _write(root, f"ends {run_id}")
    except BlockingIOError:
        _write(root, f"twice {run_id}")
    return 0


def _write(root: Path, line: str) -> None:
    with (root / "work.txt").open("a") as stream:
        stream.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit((tick if sys.argv[1] == "tick" else work)(Path(sys.argv[2]), *sys.argv[3:]))
