"""Serves the app: Streamlit's own command, in a process that gets ready for the first page meanwhile.

``python -m labeling_app.serve ARGUMENTS`` takes the arguments of ``streamlit``. While the server starts and
the browser opens, a thread imports what the pages need, lists the workspace's episodes, starts the process
that makes films, and makes the first one that will be shown; the first page then waits for none of this.

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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from labeling_app.launch import PARENT

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

FIRST_FILMS = 1  # made ahead; the page makes the next one while the first is looked at
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

        list(guarded_map(films.shown_size_of, [(2, 2)]))
        if root is not None and root.is_dir():
            make_first_film(Workspace(root.resolve()))
    except Exception as error:
        _LOG.warning("could not get ready for the first page: %s", error)


def make_first_film(workspace: Workspace) -> None:
    """Makes the film of the oldest episode without a label, which is what an annotator gets first."""
    from labeling_app.films import make_film
    from pipeline.labels import LabelStore

    episodes = workspace.list_episodes()
    labelled: set[str] = set()
    if workspace.labels_path.exists():
        with LabelStore(workspace.labels_path) as store:
            labelled = set(store.current())
    waiting = (entry for entry in episodes if entry.id not in labelled)
    for entry in islice(waiting, FIRST_FILMS):
        make_film(entry, workspace.cache / "films")


if __name__ == "__main__":
    main()
