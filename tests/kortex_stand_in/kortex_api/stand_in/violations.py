"""Notes what the vendor's client does not survive, so that a test can see that nobody does it."""

from __future__ import annotations

import os
from pathlib import Path

VIOLATIONS_VARIABLE = "KORTEX_STAND_IN_VIOLATIONS"
"""Names the file to which a line is added for each violation; unset, they only raise."""


class ConcurrentCallError(RuntimeError):
    """Two threads called through one transport at once; the vendor's client would mix up their bytes."""


def report_violation(what: str) -> None:
    """Adds a line to the file that :data:`VIOLATIONS_VARIABLE` names."""
    path = os.environ.get(VIOLATIONS_VARIABLE)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(what + "\n")
