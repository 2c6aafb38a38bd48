"""All that a tick needs besides its database: the clock, the workspace, processes, people."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.workspace import Workspace
from workflows.notifications import Target, notify
from workflows.process_identity import ProcessIdentity
from workflows.schedule import Run
from workflows.schedule_child import run_child
from workflows.schedule_conditions import Condition, measure

# A process of another machine cannot be looked at. It is taken for gone when nobody works in the workspace,
# and it had this long to begin.
_ELSEWHERE = timedelta(minutes=5)


def workspace_holder(root: Path) -> str | None:
    """The command that works in a workspace (its process's number), or ``None``. Changes nothing."""
    path = root / ".driver.lock"
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError, KeyError, TypeError):
                return f"process {json.loads(os.pread(descriptor, 2**16, 0))['driver']}"
            return "another command"
        finally:
            os.close(descriptor)
    return None


def writable_by_others(database: Path) -> Path | None:
    """The database or its folder, if somebody but us and root can write it.

    Who can write the folder can put a journal there, which SQLite plays back into the database.
    """
    for path in (database, database.parent):
        status = path.stat()
        if status.st_mode & 0o022 or status.st_uid not in {0, os.geteuid()}:
            return path
    return None


@dataclass(frozen=True)
class Outside:
    """How a tick reaches what is not its own; a test may put a clock of its own in, or quicker runs.

    ``me`` is the process of the tick; ``holder`` names who works in a workspace; ``run`` does one attempt at
    a run, waits, and returns its exit status (negative or one of ``INTERRUPTED``: it was stopped);
    ``tell`` returns what came of it.
    """

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    measure: Callable[[Workspace, Condition, datetime], Mapping[str, float]] = measure
    holder: Callable[[Path], str | None] = workspace_holder
    me: Callable[[], ProcessIdentity] = ProcessIdentity.mine
    is_alive: Callable[[ProcessIdentity], bool] = ProcessIdentity.is_alive
    run: Callable[[Path, Run, int, Path], int] = run_child
    tell: Callable[[Target, Mapping[str, Any]], Mapping[str, str]] = notify

    def is_at_work(self, run: Run, root: Path, now: datetime) -> bool:
        """Whether somebody is on a run that was begun: its process, or the tick that is to note its end."""
        worker, supervisor = run.worker(), run.supervisor()
        if not supervisor.is_here:
            # Only what was noted tells of another machine.
            return self.holder(root) is not None or abs(now - run.events[-1].at) < _ELSEWHERE
        if worker is not None and self.is_alive(worker):
            return True
        return not run.given_up and self.is_alive(supervisor)

    def tell_safely(self, target: Target, summary: Mapping[str, Any], database: Path) -> Mapping[str, str]:
        """Tells everybody; runs no command where others could have written it into the database."""
        open_to_others = writable_by_others(database) if target.command else None
        if open_to_others is not None:
            reason = f"not run, since others can write {open_to_others}: 'chmod go-w' it, and own it"
            rest = self.tell(Target("", target.url), summary) if target.url else {}
            return {"command": reason, **rest}
        return self.tell(target, summary)
