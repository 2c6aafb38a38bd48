"""The films that a server shows: made in the background, one at a time an episode, and not too many kept."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from labeling_app.films import Film, film_folder, find_film, make_film
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import Failure, InputError

AT_ONCE = 2  # films that are made at the same time; each in a process of its own
KEPT = 2000  # films that stay on the disk: a gibibyte or two
TIDY_EVERY = 100


class FilmShelf:
    """All pages of a server share one. Building it touches nothing."""

    def __init__(self, folder: Path, kept: int = KEPT) -> None:
        """``folder`` is where films lie; it may vanish at any time. ``kept`` films stay in it, about."""
        self.folder = folder
        self._kept = kept
        self._lock = threading.Lock()
        self._running: dict[Path, Future[Film]] = {}
        self._made = 0
        self._workers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="films")

    def film(self, entry: EpisodeEntry) -> Film:
        """The episode's film; waits until it is made. Raises ``InputError`` when there can be none."""
        found = find_film(entry, self.folder)
        if found is not None:
            with suppress(OSError):
                found.folder.touch()  # looked at lately: it is not the next to go
            return found
        try:
            return self.prepare(entry).result()
        except OSError as error:
            raise InputError(
                f"the film could not be written below {self.folder}: {error.strerror}"
            ) from error

    def prepare(self, entry: EpisodeEntry) -> Future[Film]:
        """Starts to make the episode's film in the background, unless it is there or being made."""
        key = film_folder(entry, self.folder)
        with self._lock:
            running = self._running.get(key)
            if running is None:
                running = self._running[key] = self._workers.submit(self._make, entry, key)
            return running

    def _make(self, entry: EpisodeEntry, key: Path) -> Film:
        try:
            return make_film(entry, self.folder)
        except Failure as error:
            raise InputError(str(error)) from error
        finally:
            with self._lock:
                self._running.pop(key, None)
                self._made += 1
                tidy = self._made % TIDY_EVERY == 0
            if tidy:
                self.tidy()

    def tidy(self) -> None:
        """Removes the films that were looked at longest ago; a player that has one open keeps playing it."""
        with suppress(OSError):
            films = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
            films.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for path in films[self._kept :]:
                shutil.rmtree(path, ignore_errors=True)
