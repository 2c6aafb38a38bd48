"""The log of completed steps: one line of JSON per computation that was carried to its end."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ListedStep:
    """A published step as a list shows it: ``bytes`` is the size of its files, ``finished`` a time in UTC."""

    name: str
    key: str
    bytes: int
    finished: str


@dataclass(frozen=True)
class CompletionLog:
    """The file ``steps/completions.jsonl``. Several processes append to it at once; nobody rewrites it."""

    path: Path

    def entries(self) -> list[dict[str, Any]]:
        """Name, key, run, seconds, finished and bytes of each completion, oldest first.

        Entries of earlier versions have no ``bytes``.
        """
        lines = []
        with suppress(FileNotFoundError):
            for line in self.path.read_bytes().splitlines():
                # Only a power cut can leave half a line.
                with suppress(json.JSONDecodeError):
                    lines.append(json.loads(line))
        return lines

    def has(self, run: str) -> bool:
        """Whether the completion of ``run`` is in it."""
        # Searched as text: reading ten thousand lines as JSON would take longer than a small step.
        try:
            return _line({"run": run}).removeprefix(b"{") in self.path.read_bytes()
        except FileNotFoundError:
            return False

    def append(self, manifest: Mapping[str, Any], run: str) -> None:
        """Adds the completion of the step with this manifest, durably."""
        line = _line({**summary(manifest), "run": run})
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                # A power cut left half a line; this one must not become its other half.
                line = b"\n" + line
            # One write of a short line: other workers' lines come before or after it, never inside.
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def summary(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the log says of a step; ``bytes`` is the size of all its files."""
    entry = {name: manifest[name] for name in ("name", "key", "seconds", "finished")}
    return {**entry, "bytes": sum(facts["bytes"] for facts in manifest["files"].values())}


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"
