"""Turns that ended at the gate on values: the pages ``reports/values-N.html`` that they left, and when."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workflows.step_result import MANIFEST

_PAGE = re.compile(r"values-(\d+)\.html")


@dataclass(frozen=True)
class RefusedTurn:
    """A turn whose values could not be trusted: its number, the page's name, and when (ISO 8601, UTC).

    ``recorded`` is empty where that cannot be told.
    """

    n: int
    page: str
    recorded: str

    def document(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return asdict(self)


def refused_turns(reports: Path) -> list[RefusedTurn]:
    """All whose page is there, by number. A page of a number that was tried again is of the last try."""
    found = []
    for page in reports.glob("values-*.html"):
        if (match := _PAGE.fullmatch(page.name)) and page.exists():
            found.append(RefusedTurn(int(match[1]), page.name, _recorded(page)))
    return sorted(found, key=lambda turn: turn.n)


def refused_since(reports: Path, iterations: Iterable[int]) -> RefusedTurn | None:
    """The turn after the last of ``iterations``, where it was refused; one that went on later is none."""
    last = max(iterations, default=0)
    return next((turn for turn in reversed(refused_turns(reports)) if turn.n > last), None)


def _recorded(page: Path) -> str:
    """When the page's step was finished; for a copy without its step, when the file was written."""
    try:
        target = page.resolve()
        try:
            manifest = json.loads((target.parent / MANIFEST).read_text())
            return datetime.fromisoformat(manifest["finished"]).astimezone(UTC).isoformat(timespec="seconds")
        except (OSError, ValueError, KeyError, TypeError):
            return datetime.fromtimestamp(target.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError:
        return ""
