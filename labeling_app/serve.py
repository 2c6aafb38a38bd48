"""Serves the app: Streamlit's own command, in a process that gets ready for the first page meanwhile.

``python -m labeling_app.serve ARGUMENTS`` takes the arguments of ``streamlit``. While the server starts and
the browser opens, a thread imports what the pages need, lists the workspace's episodes, and starts the
process that makes films; the first page then waits for none of them.

Where the variable ``PARENT`` names a process, the server ends with it: also when it was killed and could say
nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from labeling_app.launch import PARENT

LOOK_S = 0.5  # how often the server looks whether its parent is there
GRACE_S = 5.0  # for Streamlit's own way of ending

_LOG = logging.getLogger(__name__)


def main() -> None:
    """Runs Streamlit with this process's arguments until it is stopped."""
    from streamlit.web.cli import main as streamlit

    parent = os.environ.get(PARENT, "")
    if parent.isascii() and parent.isdigit():
        threading.Thread(target=end_with, args=(int(parent),), name="parent", daemon=True).start()
    arguments = sys.argv[1:]
    root = Path(arguments[arguments.index("--workspace") + 1]) if "--workspace" in arguments else None
    threading.Thread(target=get_ready, args=(root,), name="get ready", daemon=True).start()
    streamlit(args=arguments, prog_name="streamlit")


def end_with(parent: int) -> None:
    """Ends this process once ``parent`` is its parent no more."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def get_ready(root: Path | None) -> None:
    """What the first page needs, ahead of it. Whatever is wrong, the page says so: here it is only noted."""
    try:
        from labeling_app import films, label_page  # noqa: F401  # imported for those who import them next
        from pipeline.guarded_reading import guarded_map
        from pipeline.workspace import Workspace

        if root is not None and root.is_dir():
            Workspace(root.resolve()).index()
        list(guarded_map(films.shown_size_of, [(2, 2)]))
    except Exception as error:
        _LOG.warning("could not get ready for the first page: %s", error)


if __name__ == "__main__":
    main()
