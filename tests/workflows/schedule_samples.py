"""A schedule as the tests add it, at a time that they choose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipeline.workspace import Workspace
from workflows.schedule import Schedule
from workflows.schedule_store import ScheduleStore

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def add(
    workspace: Workspace, cron: str = "* * * * *", at: datetime = START, **fields: object
) -> ScheduleStore:
    """A schedule ``test``, added at a time."""
    store = ScheduleStore(workspace.root)
    store.define(Schedule("test", cron, **fields), at, new=True)  # type: ignore[arg-type]  # as they are named
    return store
