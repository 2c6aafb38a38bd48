"""A push or a pull in a process of its own, which may be killed or have too small a disk."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from workflows.cli import _report
from workflows.remote_sync import Sync


def main() -> int:
    """Arguments: push or pull, the workspace, the store, and the size that a file may have (0: any)."""
    direction, root, url, limit = sys.argv[1:]
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    sync = Sync(Workspace(Path(root)), ObjectStore(url))
    print("ready", flush=True)
    try:
        result = sync.push() if direction == "push" else sync.pull()
    except Exception as error:
        return _report(error)
    print(len(result.moved), len(result.faults), len(result.conflicts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
