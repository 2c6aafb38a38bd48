"""What a workspace takes of its disk, what is free there, and how long that lasts. Only reads."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.workspace import Workspace
from workflows.completion_log import ListedStep
from workflows.disk_usage import Usage, files_since, size_in_words, usage_of

LOOKED_BACK = timedelta(days=14)
_AT_LEAST = timedelta(days=1)
"""Of a shorter history no rate is told: it would be that of its first hours."""


@dataclass(frozen=True)
class DiskState:
    """Sizes by folder, each file in one of them; ``free`` bytes; ``daily``: how many came a day, if known."""

    usage: dict[str, Usage]
    free: int
    daily: float | None

    @property
    def days_left(self) -> float | None:
        """How long the free space lasts at that rate; ``None`` where nothing came, or that is not known."""
        return self.free / self.daily if self.daily else None

    def words(self) -> str:
        """What is free, and how long it lasts."""
        said = f"{size_in_words(self.free)} free"
        if self.daily is None or self.days_left is None:
            return said
        days = self.days_left
        lasts = (
            "for years" if days > 730 else f"about {days:.0f} days" if days >= 2 else f"{24 * days:.0f} hours"
        )
        return f"{said}, which lasts {lasts} at the present rate ({size_in_words(int(self.daily))} a day)"

    def document(self) -> dict[str, Any]:
        """The same as plain JSON; sizes in bytes."""
        return {
            "free_bytes": self.free,
            "bytes_a_day": None if self.daily is None else round(self.daily),
            "days_left": None if self.days_left is None else round(self.days_left, 1),
        }


def disk_state(workspace: Workspace, listed: Sequence[ListedStep], now: datetime) -> DiskState:
    """Looks at the folders, a bounded number of files in each; ``listed`` are the published steps."""
    seen: set[tuple[int, int]] = set()
    usage = {"episodes": usage_of(workspace.episodes, seen=seen)}
    steps = usage_of(workspace.steps, seen=seen)
    if not steps.complete:
        # Too many files to look at: as the steps' manifests have it, what is linked several times included.
        steps = Usage(max(steps.bytes, sum(step.bytes for step in listed)), len(listed), complete=True)
    usage["steps"] = steps
    for name in ("cache", "datasets", "reports", "quarantine"):
        usage[name] = usage_of(workspace.root / name, seen=seen)
    return DiskState(usage, shutil.disk_usage(workspace.root).free, _daily(workspace, listed, now))


def _daily(workspace: Workspace, listed: Sequence[ListedStep], now: datetime) -> float | None:
    """Bytes of episodes and steps that came a day, of the last :data:`LOOKED_BACK`; what went is in it."""
    came = [(datetime.fromisoformat(step.finished), step.bytes) for step in listed]
    came += [(datetime.fromtimestamp(at, UTC), size) for at, size in files_since(workspace.episodes)]
    if not came:
        return None
    span = min(now - min(at for at, _ in came), LOOKED_BACK)
    if span < _AT_LEAST:
        return None
    return sum(size for at, size in came if now - at <= LOOKED_BACK) / (span / timedelta(days=1))
