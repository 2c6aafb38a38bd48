"""Files of published steps by their content, so that what is here already is linked and not fetched again.

Datasets share their videos by hard links. In a store a content lies once; what brings steps from there makes
the links anew.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import InputError
from workflows.remote_layout import SMALL_BYTES, Content
from workflows.step_recipe import content_digest
from workflows.step_store import StepStore

_CANNOT_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)


class LocalCopies:
    """The contents of a workspace's published steps. Looks at the manifests when it is first asked."""

    def __init__(self, steps: StepStore) -> None:
        self._steps = steps
        self._places: dict[str, list[Path]] = {}
        self._checked: set[Path] = set()
        self._read = False
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def place(self, content: Content, target: Path, final: Path, download: Callable[[], None]) -> bool:
        """Puts the content at ``target``: by a link, or by ``download``; ``True`` where it was downloaded.

        ``final`` is where ``target`` will be once its step is published. Of several threads that want the
        same content one downloads it and the others link to that.
        """
        with self._guard:
            lock = self._locks[content.sha256]
        with lock:
            if self._linked(content, target):
                return False
            download()
            # In this order: under the first name until the rename, and under the second after it.
            self._note(content.sha256, target, final)
            self._checked |= {target, final}
            return True

    def _linked(self, content: Content, target: Path) -> bool:
        for place in self._known(content.sha256):
            try:
                if place not in self._checked:
                    if place.stat().st_size != content.bytes or content_digest(place) != content.sha256:
                        continue
                    self._checked.add(place)
                os.link(place, target)
                return True
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in _CANNOT_LINK:
                    raise
        return False

    def _known(self, sha256: str) -> list[Path]:
        with self._guard:
            if not self._read:
                self._read = True
                self._read_manifests()
            return list(self._places.get(sha256, []))

    def _read_manifests(self) -> None:
        for step in self._steps.addresses():
            with suppress(InputError):
                found = self._steps.find(step)
                for name, facts in (found.manifest["files"] if found else {}).items():
                    if found is not None and facts["bytes"] > SMALL_BYTES:
                        self._places.setdefault(facts["sha256"], []).append(found.path / name)

    def _note(self, sha256: str, *places: Path) -> None:
        with self._guard:
            self._places.setdefault(sha256, [])[:0] = places
