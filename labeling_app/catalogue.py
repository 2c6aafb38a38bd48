"""The recorded episodes as the app knows them: looked for in the background, never while a page waits.

Listing a workspace of 10,000 episodes asks the file system about each of them. The first look happens
before the first page is drawn; every later one in a thread of its own, while pages show what is known so
far.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

from labeling_app.helpfulness import refresh_priorities
from pipeline.errors import Failure, InputError
from pipeline.labels import LabelStore
from pipeline.workspace import IndexedEpisode, Workspace

REFRESH_S = 60.0
# What the label store calls those whom the list of episodes calls so.
DRIVERS = {"person": "teleop", "policy": "policy", "corrected": "corrected"}

_LOG = logging.getLogger(__name__)


class Catalogue:
    """The episodes of one workspace by id, oldest first; new ones are told to the label store."""

    def __init__(self, workspace: Workspace, store: LabelStore) -> None:
        """Looks at nothing yet."""
        self.workspace = workspace
        self.store = store
        self._episodes: dict[str, IndexedEpisode] = {}
        self._looked_at = float("-inf")
        self._lock = threading.Lock()
        self._looking = False

    def episodes(self) -> dict[str, IndexedEpisode]:
        """What is known now. The first call looks; later ones never wait."""
        if self._looked_at == float("-inf"):
            self.look()
            self._look_in_background()
        elif time.monotonic() - self._looked_at > REFRESH_S:
            self._look_in_background()
        return self._episodes

    def look(self) -> None:
        """Looks for episodes and tells the label store of the new ones."""
        with self._lock:
            found = {item.entry.id: item for item in self.workspace.index()}
            if found.keys() - self._episodes.keys():
                tasks = ((id_, item.entry.info.task) for id_, item in found.items())
                self.store.sync(tasks, {id_: DRIVERS.get(item.driver, "") for id_, item in found.items()})
            self._episodes = found
            self._looked_at = time.monotonic()

    def tasks(self) -> list[str]:
        """The tasks of the episodes, sorted."""
        return sorted({item.entry.info.task for item in self.episodes().values()})

    def find(self, episode_id: str) -> IndexedEpisode:
        """The episode of that id. Raises ``InputError`` if there is none or it cannot be read."""
        found = self.episodes().get(episode_id)
        if found is not None and found.entry.path.is_file():
            return found
        raise InputError(f"there is no readable episode {episode_id!r} in {self.workspace.episodes}")

    def _look_in_background(self) -> None:
        """Looks if it is time, and brings up to date where a label would help most."""
        if self._looking:
            return
        self._looking = True
        threading.Thread(target=self._quietly_look, name="catalogue", daemon=True).start()

    def _quietly_look(self) -> None:
        try:
            if not self._episodes or time.monotonic() - self._looked_at > REFRESH_S:
                self.look()
            refresh_priorities(self.workspace, self.store)
        except (OSError, sqlite3.Error, InputError, Failure) as error:
            # A store that is locked now may not be so in a minute; pages say what is wrong where it matters.
            _LOG.warning("could not look for new episodes: %s", error)
            self._looked_at = time.monotonic()
        finally:
            self._looking = False


def workspace_at(root: Path) -> Workspace:
    """The workspace in a folder. Raises ``InputError`` if there is no such folder."""
    if not root.is_dir():
        raise InputError(f"There is no workspace at {root}: start with `recap label --workspace DIR`.")
    return Workspace(root)
