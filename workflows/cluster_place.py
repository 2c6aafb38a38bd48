"""Whether a machine of a cluster works on the same workspace, with the same software, as the driver.

A driver holds a lock in the workspace whose file says something that nobody else says. A machine that finds
the file, with that text, locked by another process, sees the same files through locks that work: what keeps
two machines from computing the same step. Elsewhere a step would write into a folder of that machine's own.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline.errors import InputError
from pipeline.file_lock import is_locked, locked
from pipeline.workspace import Workspace
from workflows.step_recipe import code_version

# The environment variable in which a driver's worker processes, on any machine, find what to look for.
PLACE = "RECAP_CLUSTER_PLACE"
_SOFTWARE = "kinova-recap"


@dataclass(frozen=True)
class SharedPlace:
    """What a process on any machine must find to be of use to the driver.

    root: the workspace, an absolute path. mark: a file in it whose lock the driver holds; text: what is in
    it. software: the driver's version of this project. shared: whether machines have the workspace in
    common.
    """

    root: Path
    mark: Path
    text: str
    software: str
    shared: bool = True

    def to_json(self) -> str:
        """For :data:`PLACE`."""
        return json.dumps([str(self.root), str(self.mark), self.text, self.software, self.shared])

    @classmethod
    def from_json(cls, said: str) -> SharedPlace:
        """What :meth:`to_json` gave."""
        root, mark, text, software, shared = json.loads(said)
        return cls(Path(root), Path(mark), text, software, shared)

    def require(self) -> None:
        """Raises ``InputError`` naming this machine where it is not the driver's workspace or software."""
        here = socket.gethostname()
        if self.shared:
            self._require_files(here)
        if (version := software_version()) != self.software:
            raise InputError(
                f"machine {here} of the cluster has version {version} of this software, and the driver "
                f"{self.software}: install the same everywhere"
            )

    def _require_files(self, here: str) -> None:
        try:
            found = self.mark.read_text()
        except OSError:
            raise InputError(
                f"machine {here} of the cluster does not see the workspace {self.root}: share it, and mount "
                "it there at the same path (docs/clusters.md)"
            ) from None
        if found != self.text:
            raise InputError(
                f"machine {here} of the cluster has another folder at {self.root}: mount the same"
            )
        if not is_locked(self.mark):
            raise InputError(
                f"machine {here} of the cluster sees the workspace {self.root} without its locks: mount it "
                "so that locks reach the server, NFS without 'nolock' and 'local_lock' (docs/clusters.md)"
            )


@contextmanager
def shared_place(workspace: Workspace, shared: bool = True) -> Iterator[SharedPlace]:
    """Holds a new mark in the workspace; the mark of a killed driver goes with the next sweep of steps.

    Without ``shared`` machines have no disk in common, and are asked for the software alone.
    """
    root = workspace.root.absolute()
    mark = workspace.steps.absolute() / ".locks" / f"cluster-{uuid.uuid4().hex}.lock"
    with locked(mark) as descriptor:
        text = f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"
        os.pwrite(descriptor, text.encode(), 0)
        yield SharedPlace(root, mark, text, software_version(), shared)


def require_place() -> None:
    """In a worker process of a cluster: raises ``InputError`` where this machine is not fit; see above.

    A machine may have joined since the driver had all of them look. Elsewhere does nothing.
    """
    if said := os.environ.get(PLACE):
        SharedPlace.from_json(said).require()


def require_code(parts: Mapping[str, str]) -> None:
    """In a worker process of a cluster: raises ``InputError`` where code of a step is not the driver's.

    parts: the driver's digest of each, by name (:meth:`Step.code_parts`). The step's key says that it was
    computed with the driver's. Elsewhere does nothing.
    """
    if not os.environ.get(PLACE):
        return
    here = socket.gethostname()
    other = [name for name, digest in parts.items() if _digest(name) != digest]
    if other:
        raise InputError(
            f"machine {here} of the cluster has another source of {other[0]} than the driver: "
            "install the same everywhere, and change nothing while a command works"
        )


def software_version() -> str:
    """The version of this project that is installed here."""
    try:
        return metadata.version(_SOFTWARE)
    except metadata.PackageNotFoundError:
        return "unknown"


def _digest(name: str) -> str | None:
    try:
        return code_version((name,))
    except ValueError:
        return None
