"""Where everything of a lab lives, and the list of its recorded episodes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.episode_check import TIMEOUT_S, Finding, Report, check_workspace
from pipeline.episode_file import EpisodeEntry, recover
from pipeline.episode_import import import_file, remove_leftovers
from pipeline.episode_index import IndexedEpisode, Result, look_up
from pipeline.episode_layout import PART_SUFFIX
from pipeline.episode_names import check_id, task_slug
from pipeline.episode_recovery import RECOVERY_TIMEOUT_S
from pipeline.episode_repair import Action, Repair, finish_interrupted, repair_files, repairing
from pipeline.errors import InputError
from pipeline.site_config import load_site_config

__all__ = ["EpisodeEntry", "Finding", "IndexedEpisode", "Repair", "Workspace", "check_id", "task_slug"]

_LOG = logging.getLogger(__name__)


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

        Raises ``InputError`` where ``root`` is a file, or cannot be written to.
        """
        try:
            if self.root.exists() and not self.root.is_dir():
                raise InputError(f"the workspace {self.root} is a file: name a folder with --workspace")
            for folder in (self.episodes, self.cache, self.datasets, self.steps, self.reports):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            place = error.filename or self.root
            raise InputError(
                f"cannot make the workspace {self.root} ({place}: {error.strerror or error}): change its "
                "permissions, or name another with --workspace"
            ) from error
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

        A file that cannot be read is left out with a warning; :meth:`check` reports it.
        """
        return [item.entry for item in self.index() if task is None or item.entry.info.task == task]

    def index(self) -> list[IndexedEpisode]:
        """As :meth:`list_episodes`, with what the list of episodes shows besides: who drove.

        Each file is opened once, in a child process that may crash or hang over it; what it held is
        remembered in ``cache/``.
        """
        found = []
        for result in look_up(list(self._files("*.h5")), self._index_path).values():
            if isinstance(result, InputError):
                _LOG.warning("left out of the list: %s", result)
            else:
                found.append(result)
        return sorted(found, key=lambda item: (item.entry.info.created, item.entry.id))

    def find(self, episode_id: str) -> EpisodeEntry:
        """The episode of that id. Raises ``InputError`` if there is none or it cannot be read."""
        found = self._look_for(episode_id)
        if found is None:
            raise InputError(
                f"there is no episode {episode_id!r} in {self.episodes}: see 'recap episodes list'"
            )
        return found

    def _look_for(self, episode_id: str) -> EpisodeEntry | None:
        for path in self._files(f"{check_id(episode_id)}.h5"):
            return _entry(look_up([path], self._index_path)[path])
        return None

    def recover(self, *, timeout_s: float = RECOVERY_TIMEOUT_S) -> list[Recovery]:
        """Finishes every recording that a dead process left; those still being recorded are left alone.

        One whose reading takes longer than ``timeout_s`` seconds (large ones get more) is quarantined.
        """
        return [Recovery(part, recover(part, self.quarantine, timeout_s)) for part in self.unfinished()]

    def unfinished(self) -> list[Path]:
        """Recordings not closed: still being recorded, or left over by a process that died."""
        return list(self._files(f"*.h5{PART_SUFFIX}"))

    def import_episode(self, source: Path, *, timeout_s: float = TIMEOUT_S) -> EpisodeEntry:
        """Copies an episode file from elsewhere into the workspace; returns its entry there.

        Importing the same frames under the same id again changes nothing. Safe to kill at any moment.
        Raises ``InputError`` if it is no sound episode, also if reading it takes over ``timeout_s`` seconds
        (large ones get more), or if its id is another's.
        """
        entry = _entry(look_up([source], None, timeout_s=timeout_s)[source])
        final = self.episode_path(entry.info.task, entry.id)
        known = self._look_for(entry.id)
        if known is not None:
            if known.fingerprint == entry.fingerprint:
                return known
            raise InputError(
                f"cannot import {source}: there is an episode {entry.id!r} already, of other frames"
            )
        remove_leftovers(self.episodes)
        import_file(source, final, timeout_s=timeout_s)
        return self.find(entry.id)

    def check(
        self, *, workers: int = 1, timeout_s: float = TIMEOUT_S, report: Report | None = None
    ) -> list[Finding]:
        """Everything that is wrong or doubtful in the recorded episodes; reads every frame.

        ``report`` is called with the files read so far and their number. A file that takes longer than
        ``timeout_s`` seconds (large ones get more) is taken for damaged.
        """
        return check_workspace(
            self._files("*.h5"),
            self.unfinished(),
            self.labels_path,
            tasks=load_site_config(self.config_path).tasks,
            strays=self._strays(),
            workers=workers,
            timeout_s=timeout_s,
            report=report,
        )

    def repair(
        self,
        findings: Sequence[Finding],
        *,
        workers: int = 1,
        timeout_s: float = TIMEOUT_S,
        dry_run: bool = False,
    ) -> Iterator[Repair]:
        """Repairs what :meth:`check` found fatal, and recovers left-over recordings; deletes nothing.

        With ``dry_run`` only says what it would do. Raises ``InputError`` while another process repairs.
        """
        if not self.episodes.is_dir():
            return
        with repairing(self.episodes):
            if dry_run:
                for part in self.unfinished():
                    yield Repair(Action.RECOVERED, part, None, "unless it is still being recorded")
            else:
                remove_leftovers(self.episodes)
                yield from finish_interrupted(self.episodes)
                yield from self._recovered(timeout_s)
            yield from repair_files(
                findings, self.quarantine, workers=workers, timeout_s=timeout_s, dry_run=dry_run
            )

    def _recovered(self, timeout_s: float) -> Iterator[Repair]:
        for recovery in self.recover(timeout_s=timeout_s):
            part, episode = recovery.part, recovery.episode
            if episode is not None:
                yield Repair(Action.RECOVERED, part, episode, "an unfinished recording")
            elif os.path.lexists(part):
                yield Repair(Action.LEFT, part, None, "it is still being recorded")
            else:
                yield Repair(Action.QUARANTINED, part, self.quarantine, "its note there says why")

    @property
    def _index_path(self) -> Path:
        return self.cache / "episodes.sqlite"

    def _strays(self) -> Iterator[Path]:
        """Files below episodes/ that are neither episodes nor what recording, repair or import works on."""
        for path in sorted(self.episodes.rglob("*"), key=str):
            place = path.relative_to(self.episodes)
            known = len(place.parts) == 2 and (path.suffix == ".h5" or ".h5." in path.name)
            if not known and path.is_file() and not any(part.startswith(".") for part in place.parts):
                yield path

    def _files(self, pattern: str) -> Iterator[Path]:
        yield from sorted(self.episodes.glob(f"*/{pattern}"), key=str)  # as paths they compare slowly


def _entry(result: Result) -> EpisodeEntry:
    """Raises what could not be read."""
    if isinstance(result, InputError):
        raise result
    return result.entry
