"""The process of one attempt at a run: ``recap improve``, and a note of how it ended.

The note is written by this process itself, so that it does not matter whether the tick that began it is still
there. Started by :func:`run_child` as ``python -m workflows.schedule_child ROOT RUN ATTEMPT``.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.workspace import Workspace
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Kind, Run, Schedule
from workflows.schedule_store import ScheduleStore
from workflows.schedule_summary import iterations_now, summary_after

SUPERSEDED = 75
"""Exit status of an attempt that another one has replaced: it did nothing."""
INTERRUPTED = (130, 137, 143)
"""Exit statuses, besides the negative ones of signals, of a command that was stopped and did not end."""


def run_child(root: Path, run: Run, attempt: int, log: Path) -> int:
    """Runs one attempt to its end, its output appended to ``log``; returns its exit status.

    A polite request to stop (SIGTERM) is passed on, so that the tick does not leave it behind.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "workflows.schedule_child"]
    begun: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as stream, _passing_on_termination(begun):
        process = subprocess.Popen(
            [*command, str(root.absolute()), str(run.id), str(attempt)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        begun.append(process)
        try:
            return process.wait()
        except KeyboardInterrupt:
            # Ctrl-C in a terminal reaches both.
            process.wait()
            raise


@contextmanager
def _passing_on_termination(begun: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(*_: object) -> None:
        if not begun:
            raise KeyboardInterrupt
        begun[0].terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def work(root: Path, run_id: int, attempt: int) -> int:
    """Does one attempt in this process; returns the exit status."""
    from workflows.cli import main

    store = ScheduleStore(root)
    workspace = Workspace(root)
    if not store.register(run_id, attempt, _now(), iterations_now(workspace), ProcessIdentity.mine()):
        return SUPERSEDED
    run = store.run(run_id)
    schedule = Schedule.from_json(run.as_started["schedule"])
    log = root / run.as_started["log"]
    said_before = log.stat().st_size if log.exists() else 0
    print(f"{_now().isoformat(timespec='seconds')} attempt {attempt}: {schedule.command}", flush=True)
    status = main(["improve", "--workspace", str(root), *schedule.options])
    sys.stdout.flush()
    if status in INTERRUPTED:
        return status
    error = _error_in(log, said_before) if status else ""
    now = _now()
    document: dict[str, Any] = summary_after(workspace, store.run(run_id), status, error, now)
    store.note(run_id, Kind.ENDED, now, document, attempt=attempt, notify=schedule.target.is_set)
    return status


def _error_in(log: Path, start: int) -> str:
    """What the command said last of an error."""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(start)
        lines = stream.read().decode(errors="replace").splitlines()
        found = [line.partition("recap: error: ")[2] for line in lines if line.startswith("recap: error: ")]
        return found[-1] if found else next((line for line in reversed(lines) if line.strip()), "")
    return ""


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
