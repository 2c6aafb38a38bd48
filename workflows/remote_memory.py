"""What this machine knows of a store: what was equal on both sides last time, and the hashes of its files.

Without it nothing is lost: files are hashed anew, and what differs on both sides is a conflict, since nobody
can say who changed it. It lies in ``.sync/``, a file per store.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.durable_files import write_file
from workflows.remote_layout import Content, is_sha256
from workflows.step_recipe import content_digest

FOLDER = ".sync"


class SyncMemory:
    """The memory of one store in one workspace. :meth:`save` writes it."""

    def __init__(self, root: Path, url: str) -> None:
        self._root = root
        self._path = root / FOLDER / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"
        self._url = url
        document: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_bytes())
            document = found if isinstance(found, dict) and found.get("url") == url else {}
        self._equal: dict[str, str] = dict(document.get("equal", {}))
        self._hashes: dict[str, list[Any]] = dict(document.get("hashes", {}))
        self._store = str(document.get("store", ""))
        self._saved = self._text()

    @property
    def is_new(self) -> bool:
        """Whether nothing has ever been found equal: another workspace may be there."""
        return not self._equal

    def meet(self, store: str | None) -> None:
        """Forgets what was equal where the store is not the one of last time but emptied, or begun anew.

        ``store``: as :func:`workflows.remote_layout.marked` names it.
        """
        if store != self._store:
            self._equal.clear()
        self._store = store or ""

    def equal(self, path: str) -> str | None:
        """What the file or database was when both sides were equal last."""
        return self._equal.get(path)

    def note(self, path: str, identity: str) -> None:
        """Both sides are equal now."""
        self._equal[path] = identity

    def content(self, path: str) -> Content:
        """The content of a file of the workspace; read only where its size or time changed."""
        status = (self._root / path).stat()
        known = self._hashes.get(path)
        if known is None or known[:2] != [status.st_size, status.st_mtime_ns] or not is_sha256(known[2]):
            known = [status.st_size, status.st_mtime_ns, content_digest(self._root / path)]
            self._hashes[path] = known
        return Content(known[2], status.st_size)

    def save(self) -> None:
        """Writes it where it changed, atomically."""
        text = self._text()
        if text != self._saved:
            write_file(self._path, text)
            self._saved = text

    def _text(self) -> bytes:
        known = {"store": self._store, "equal": self._equal, "hashes": self._hashes}
        return json.dumps({"url": self._url, **known}).encode()
