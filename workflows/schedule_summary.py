"""What is noted and told of a run at its end: plain JSON, with what the ledger says was promoted or kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipeline.workspace import Workspace
from workflows.schedule import Run


def iterations_now(workspace: Workspace) -> dict[str, str]:
    """Number and time of each iteration in the ledger, to tell later what came; none if it is damaged."""
    from workflows.ledger import Ledger

    try:
        return {str(one.n): one.recorded for one in Ledger(workspace).iterations()}
    except (sqlite3.Error, ValueError):
        return {}  # the command itself says what is wrong with it


def summary_after(workspace: Workspace, run: Run, status: int, error: str, ended: datetime) -> dict[str, Any]:
    """The summary of a run whose command ended with ``status``.

    ``outcome`` is ``promoted``, ``kept`` (there is a new candidate, and the champion stays), ``unchanged``
    (there was nothing to do) or ``failed``.
    """
    if status != 0:
        return failure(workspace, run, error, ended, status)
    from workflows.ledger import Ledger

    before = _before(run)
    news = [one for one in Ledger(workspace).iterations() if before.get(str(one.n)) != one.recorded]
    champion = Ledger(workspace).champion()
    found: dict[str, Any] = {"outcome": "unchanged", "reason": "nothing was new since the last iteration"}
    if news:
        last = news[-1]
        found = {
            "outcome": "promoted" if last.summary.get("promoted") else "kept",
            "reason": str(last.summary.get("reason", "")),
            "iteration": last.n,
            "report": last.summary.get("report"),
            "performances": last.summary.get("performances"),
        }
    return {
        **_head(workspace, run, ended),
        **found,
        "status": 0,
        "champion": None if champion is None else f"{champion.name}/{champion.key}",
    }


def failure(
    workspace: Workspace, run: Run, error: str, ended: datetime, status: int | None = None
) -> dict[str, Any]:
    """The summary of a run that gave nothing; ``status`` is the command's exit status, if it had one."""
    reason = error or f"the command ended with status {status} and said nothing"
    return {**_head(workspace, run, ended), "outcome": "failed", "reason": reason, "status": status}


def refusal(workspace: Workspace, run: Run, reason: str, ended: datetime) -> dict[str, Any]:
    """The summary of a run that was never begun."""
    return {**_head(workspace, run, ended), "outcome": "refused", "reason": reason, "status": None}


def trial(workspace: Workspace, name: str, now: datetime) -> dict[str, Any]:
    """What is told to try whether telling works: a run that was not."""
    run = Run(0, name, now)
    return {
        **_head(workspace, run, now),
        "outcome": "test",
        "reason": "tried by 'recap schedule test-notify'; nothing was run",
        "status": None,
    }


def _head(workspace: Workspace, run: Run, ended: datetime) -> dict[str, Any]:
    started = run.started
    head: dict[str, Any] = {
        "schedule": run.schedule,
        "workspace": str(workspace.root.absolute()),
        "logical_time": run.logical_time.isoformat(),
        "missed": run.missed,
        "attempts": run.attempts,
        "started": None if started is None else started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "seconds": None if started is None else round((ended - started).total_seconds(), 3),
    }
    if started is not None:
        head |= {"missed": run.as_started["missed"], "log": run.as_started["log"]}
    return head


def _before(run: Run) -> Mapping[str, str]:
    """The iterations there were when the first attempt's process began."""
    for event in run.events:
        if "iterations" in event.document:
            found: Mapping[str, str] = event.document["iterations"]
            return found
    return {}
