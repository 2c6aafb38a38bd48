"""Where everything of a lab lives, and the list of its recorded episodes."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.durable_files import publish
from pipeline.episode_check import Finding, check_workspace
from pipeline.episode_file import EpisodeEntry, read_entry, recover
from pipeline.episode_layout import PART_SUFFIX
from pipeline.errors import InputError

__all__ = ["EpisodeEntry", "Finding", "Workspace", "check_id", "task_slug"]

_LOG = logging.getLogger(__name__)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_SLUG_LENGTH = 60


def check_id(episode_id: str) -> str:
    """Returns ``episode_id`` if it is safe as a file name; otherwise raises ``InputError``."""
    if not _ID.fullmatch(episode_id):
        raise InputError(
            f"episode id {episode_id!r} is not safe as a file name: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit, at most 120"
        )
    return episode_id


def task_slug(task: str) -> str:
    """A folder name for a task, of ``a-z0-9-`` only, so it can never leave its parent folder.

    Tasks that differ have different slugs: where letters are lost, a hash of the task is added.
    """
    if not task.strip():
        raise InputError("a task needs some text")
    ascii_text = unicodedata.normalize("NFKD", task).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:_SLUG_LENGTH].strip("-")
    if slug.replace("-", " ") == task:
        return slug
    digest = hashlib.sha256(task.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{slug}-{digest}" if slug else f"task-{digest}"


def _entry(path: Path) -> EpisodeEntry:
    """As :func:`read_entry`, but once a process for each file: pages list them often."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return _entry_of(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=100_000)
def _entry_of(path: Path, inode: int, mtime_ns: int, size: int) -> EpisodeEntry:
    return read_entry(path)


@dataclass(frozen=True)
class Recovery:
    """What became of one left-over recording; ``episode`` is ``None`` if it gave no episode."""

    part: Path
    episode: Path | None


@dataclass(frozen=True)
class Workspace:
    """The folder that holds all of a lab's data. Building one touches nothing."""

    root: Path

    def create(self) -> Workspace:
        """Makes the folders that are missing and returns the workspace.

        Raises ``InputError`` where ``root`` is a file.
        """
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"the workspace {self.root} is a file: name a folder with --workspace")
        for folder in (self.episodes, self.cache, self.datasets, self.steps, self.reports):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    @property
    def episodes(self) -> Path:
        """Recorded episodes: ``<task slug>/<id>.h5``."""
        return self.root / "episodes"

    @property
    def labels_path(self) -> Path:
        """The label store's SQLite file."""
        return self.root / "labels.sqlite"

    @property
    def cache(self) -> Path:
        """Decoded frames."""
        return self.root / "cache"

    @property
    def datasets(self) -> Path:
        """Training sets."""
        return self.root / "datasets"

    @property
    def steps(self) -> Path:
        """Published results of durable steps."""
        return self.root / "steps"

    @property
    def reports(self) -> Path:
        """HTML reports."""
        return self.root / "reports"

    @property
    def quarantine(self) -> Path:
        """Left-over recordings that could not be read, kept for a person to look at."""
        return self.root / "quarantine"

    @property
    def ledger_path(self) -> Path:
        """The driver's SQLite ledger of runs."""
        return self.root / "runs.sqlite"

    @property
    def config_path(self) -> Path:
        """The site's settings."""
        return self.root / "recap.toml"

    def episode_path(self, task: str, episode_id: str) -> Path:
        """Where an episode of ``task`` is recorded. Raises ``InputError`` for an unsafe id or empty task."""
        return self.episodes / task_slug(task) / f"{check_id(episode_id)}.h5"

    def list_episodes(self, task: str | None = None) -> list[EpisodeEntry]:
        """All finished episodes, or those of one task, sorted by (created, id).

        Reads attributes only, once a process. A file that cannot be read is left out with a warning;
        :meth:`check` reports it.
        """
        entries = []
        for path in self._files("*.h5"):
            try:
                entry = _entry(path)
            except InputError as error:
                _LOG.warning("left out of the list: %s", error)
                continue
            if task is None or entry.info.task == task:
                entries.append(entry)
        return sorted(entries, key=lambda entry: (entry.info.created, entry.id))

    def find(self, episode_id: str) -> EpisodeEntry:
        """The episode of that id. Raises ``InputError`` if there is none or it cannot be read."""
        name = f"{check_id(episode_id)}.h5"
        for path in self._files(name):
            return _entry(path)
        raise InputError(f"there is no episode {episode_id!r} in {self.episodes}: see 'recap episodes list'")

    def recover(self) -> list[Recovery]:
        """Finishes every recording that a dead process left; those still being recorded are left alone."""
        return [Recovery(part, recover(part, self.quarantine)) for part in self.unfinished()]

    def unfinished(self) -> list[Path]:
        """Recordings not closed: still being recorded, or left over by a process that died."""
        return list(self._files(f"*.h5{PART_SUFFIX}"))

    def import_episode(self, source: Path) -> EpisodeEntry:
        """Copies an episode file from elsewhere into the workspace.

        Raises ``InputError`` if it is no readable episode, was damaged, or its id is taken.
        """
        entry = read_entry(source)
        final = self.episode_path(entry.info.task, entry.id)
        if any(self._files(final.name)):
            raise InputError(f"cannot import {source}: there is an episode {entry.id!r} already")
        final.parent.mkdir(parents=True, exist_ok=True)
        copy = final.with_name(final.name + ".import")
        shutil.copyfile(source, copy)
        publish(copy, final)
        return read_entry(final)

    def check(self) -> list[Finding]:
        """Everything that is wrong or doubtful in the recorded episodes; reads every frame."""
        return check_workspace(self._files("*.h5"), self.unfinished(), self.labels_path)

    def _files(self, pattern: str) -> Iterator[Path]:
        yield from sorted(self.episodes.glob(f"*/{pattern}"))
