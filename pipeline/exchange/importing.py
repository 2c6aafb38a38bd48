"""Brings episodes of other formats into a workspace: found, read, mapped, written, each in a child process.

An episode appears whole under its final name or not at all, and one that is there is never touched: its
id follows from the data, so that the same data are found again. Doing it again after a crash goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.exchange.conversion import Imported, ImportOptions, convert
from pipeline.exchange.foreign_episode import EpisodeReference
from pipeline.exchange.formats import Format, list_episodes, read_episode, sources
from pipeline.exchange.imported_file import importing_folder
from pipeline.guarded_reading import guarded_map
from pipeline.segment_runs import ORIGIN, proposed_segments, subtask_note
from pipeline.workspace import Workspace

__all__ = ["ImportOptions", "ImportResult", "Imported", "import_episodes"]

_LISTING_TIMEOUT_S = 120.0
_BASE_TIMEOUT_S = 120.0
_VIDEO_BYTES_PER_S = 30_000  # how slowly a slow machine may decode videos
_HDF5_BYTES_PER_S = 500_000
_EXPORTED = ("lerobot", "robomimic")  # what we write too, with several episodes under one name


@dataclass(frozen=True)
class ImportResult:
    """What became of one recording: ``imported``, or why it was ``refused``.

    ``subtasks`` is how many came along with an episode that was not there before.
    """

    name: str
    imported: Imported | None = None
    refused: str | None = None
    subtasks: int = 0


@dataclass(frozen=True)
class _Job:
    """One episode to convert. A message about it names the reference."""

    reference: EpisodeReference
    workspace: Path
    options: ImportOptions = field(default_factory=ImportOptions)
    turn: int = 0  # the number of the path that it was found at

    def __str__(self) -> str:
        return str(self.reference)


def import_episodes(
    paths: Sequence[Path],
    workspace: Workspace,
    *,
    form: Format = Format.AUTO,
    options: ImportOptions | None = None,
    limit: int | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[ImportResult]:
    """Yields what became of each episode at ``paths`` (files, datasets, folders of these), in order.

    Where two paths hold the same episode, the first path's comes in.
    At most ``limit`` episodes are tried; ``progress(done, total)`` is called after each. A path that does
    not exist is one refused result. Raises nothing for bad data.
    """
    jobs: list[_Job] = []
    seen: set[tuple[Path, str]] = set()
    chosen = options or ImportOptions()
    for turn, result in _found(paths, form):
        if isinstance(result, ImportResult):
            yield result
            continue
        place = (result.path.resolve(), result.key)
        if place not in seen and (limit is None or len(jobs) < limit):
            seen.add(place)
            jobs.append(_Job(result, workspace.root, chosen, turn))
    if jobs and not chosen.dry_run:
        workspace.create()
    try:
        results = chain.from_iterable(
            guarded_map(_convert, batch, workers=workers, timeout_s=_timeout_s) for batch in _batches(jobs)
        )
        for done, (job, outcome) in enumerate(results, start=1):
            if progress is not None:
                progress(done, len(jobs))
            if isinstance(outcome, InputError):
                yield ImportResult(str(job), refused=_without(str(job), str(outcome)))
            else:
                imported, subtasks = outcome
                yield ImportResult(str(job), imported=imported, subtasks=subtasks)
    finally:
        with suppress(OSError):  # not empty, or not there
            importing_folder(workspace).rmdir()


def _batches(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """The jobs in order, cut where one may hold an episode that the batch holds too, of an earlier path.

    Only within a batch do episodes overtake each other. A file of one episode is called as its episode,
    but exports hold recordings under any name.
    """
    batch: list[_Job] = []
    names: set[str] = set()
    for job in jobs:
        name = job.reference.path.name
        another_path = bool(batch) and batch[-1].turn != job.turn
        exports = any(near.reference.format in _EXPORTED for near in (job, *batch[-1:]))
        if another_path and (exports or name in names):
            yield batch
            batch, names = [], set()
        batch.append(job)
        names.add(name)
    if batch:
        yield batch


def _found(paths: Sequence[Path], form: Format) -> Iterator[tuple[int, EpisodeReference | ImportResult]]:
    """What is at the paths, each with the number of its path."""
    places: list[tuple[str, Path, Format]] = []
    turns: list[int] = []
    for turn, path in enumerate(paths):
        try:
            for source in sources(path):
                places.append((str(source), source, form))
                turns.append(turn)
        except (InputError, OSError) as error:
            yield turn, ImportResult(str(path), refused=str(error))
    # One child lists: it is quick, and the order of what is found is the order of the paths.
    listings = guarded_map(_list, places, timeout_s=_LISTING_TIMEOUT_S)
    for turn, (place, listed) in zip(turns, listings, strict=True):
        if isinstance(listed, InputError):
            yield turn, ImportResult(place[0], refused=_without(place[0], str(listed)))
        else:
            yield from ((turn, reference) for reference in listed)


def _list(place: tuple[str, Path, Format]) -> list[EpisodeReference]:
    return list_episodes(place[1], place[2])


def _convert(job: _Job) -> tuple[Imported, int]:
    """Runs in a child: everything from the foreign file to the episode's own.

    Returns, too, how many sub-tasks came along, none where the episode was there.
    """
    workspace = Workspace(job.workspace)
    if job.reference.format == Format.RECAP:
        imported, extra = _copy(job.reference.path, workspace, job.options)
    else:
        episode = read_episode(job.reference, job.options.mapping.image_order)
        imported = convert(episode, str(job.reference), workspace, job.options)
        extra = {ORIGIN: subtask_note(episode.subtasks)}
    is_new = imported.status == job.options.done
    return imported, len(proposed_segments(extra, imported.frames)) if is_new else 0


def _copy(path: Path, workspace: Workspace, options: ImportOptions) -> tuple[Imported, dict[str, Any]]:
    """Our own format: the file as it is. Returns, too, what else the episode says of itself."""
    from pipeline.episode_file import read_entry

    if options.changes():
        raise InputError(
            f"{path} is an episode of our own, which is taken as it is: --task, --operator, --robot, "
            "--camera and --mapping are for other formats"
        )
    entry = read_entry(path)
    there = next(workspace.episodes.glob(f"*/{entry.id}.h5"), None)
    if not options.dry_run:
        entry = workspace.import_episode(path)
    elif there is not None and read_entry(there).fingerprint != entry.fingerprint:
        raise InputError(f"there is an episode {entry.id!r} already, of other frames")
    done = options.done if there is None else "present"
    return Imported(entry.id, entry.info.task, entry.length, done), entry.info.extra


def _timeout_s(job: _Job) -> float:
    speed = _VIDEO_BYTES_PER_S if job.reference.format in ("lerobot", "droid") else _HDF5_BYTES_PER_S
    return _BASE_TIMEOUT_S + job.reference.size_bytes / speed


def _without(name: str, message: str) -> str:
    """A message without the name that stands before it in a list anyway."""
    return message.removeprefix(f"{name}: ")
