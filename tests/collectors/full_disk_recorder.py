"""Records until the disk is full: ``python -m tests.collectors.full_disk_recorder ROOT [LARGEST_FILE]``.

``LARGEST_FILE`` in bytes makes writing fail although the disk has room, as a quota does. Prints whether the
arm still moves, then ends as the command line does: one line on standard error, status 1.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from collectors.collection_session import SessionSettings, run_session
from pipeline.errors import Failure
from pipeline.workspace import Workspace
from tests.collectors.moving_arm import TASK, Hand, MovingArm


def main() -> int:
    """See the module."""
    if len(sys.argv) > 2:
        limit = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    arm = MovingArm()
    settings = SessionSettings(
        TASK, "nobody", rate_hz=150.0, max_seconds=60.0, auto_start_s=0.0, min_free_bytes=0, reserve_bytes=0
    )
    try:
        run_session(Workspace(Path(sys.argv[1])), arm, Hand(), None, settings)
    except Failure as error:
        print(f"moving: {arm.is_moving()}, rose by {arm.position[2] * 1000:.0f} mm")
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
