"""Turns what a killed recording left behind into an episode marked truncated.

The left-over is only read: the rows that reached the disk are written to a new file, which takes the
episode's final name once it is complete. The left-over then goes if all of its rows are in the new file;
otherwise, and if nothing can be read, it moves to a quarantine folder for a person to look at.

The reading happens in a child process with a time limit: on a file with damaged inner links, which a
power cut can leave, the HDF5 library may crash or loop for ever.
"""

from __future__ import annotations

import fcntl
import glob
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import h5py

from pipeline.durable_files import fsync_path, process_exists, publish
from pipeline.episode import EpisodeInfo
from pipeline.episode_attributes import finish, read_info
from pipeline.episode_finding import CUT_FROM, without_path
from pipeline.episode_layout import (
    FOREIGN,
    LIBVER,
    LOCKING,
    NO_SOURCE,
    NO_TIMESTAMP,
    PART_SUFFIX,
    Fingerprint,
    Row,
    append_rows,
    create_datasets,
    iterate_rows,
    plain_reason,
    read_foreign_names,
    write_foreign,
    write_image_shapes,
)
from pipeline.errors import InputError
from pipeline.frame_codec import decode
from pipeline.guarded_reading import guarded_map
from pipeline.quarantine import to_quarantine

_LOG = logging.getLogger(__name__)
SALVAGE_SUFFIX = ".salvage"  # of a rescue that is being written; worth nothing after a crash
RECOVERY_TIMEOUT_S = 60.0  # of computing, for a small file
_ROWS_PER_WRITE = 64
_BYTES_PER_S = 2e6  # slower than any disk and JPEG decoder we have met


@dataclass(frozen=True)
class Salvage:
    """How many ``rows`` of the file of episode ``episode_id`` were ``saved``."""

    saved: int
    rows: int
    episode_id: str


def recover(
    part_path: Path, quarantine: Path | None = None, timeout_s: float = RECOVERY_TIMEOUT_S
) -> Path | None:
    """Finishes one left-over ``<id>.h5.part``; returns the episode's path, or ``None`` if there is none.

    There is none when the recording still goes on (its writer holds the file's lock), when no frame of it
    can be read, or when it holds an episode of another id than its name says: in the last two cases the
    file moves to ``quarantine`` (default: the folder of that name beside it). Doing it again, also after
    a crash in the middle, gives the same result. ``timeout_s`` is for a small file; large ones get more.
    """
    if not part_path.name.endswith(f".h5{PART_SUFFIX}"):
        raise InputError(f"{part_path} is no unfinished recording: its name does not end in .h5{PART_SUFFIX}")
    folder = quarantine or part_path.parent / "quarantine"
    if not part_path.is_file():
        if part_path.is_dir() or part_path.is_symlink():
            _set_aside(part_path, folder, "it is no file")
        return None
    try:
        # HDF5's own lock would not tell a recording that goes on in this very process, nor two recoveries.
        with part_path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not part_path.exists():
                return None  # whoever held the lock before has just finished it
            return _recover_held(part_path, folder, timeout_s)
    except BlockingIOError:
        _LOG.info("%s is still being recorded: left alone", part_path)
        return None
    except FileNotFoundError:
        return None


def _recover_held(part_path: Path, quarantine: Path, timeout_s: float) -> Path | None:
    final = part_path.with_name(part_path.name.removesuffix(PART_SUFFIX))
    if final.exists():
        # Either the crash came between publishing the rescue and removing the left-over, or somebody
        # put the episode there by other means. Both ways the final file stands.
        _set_aside(part_path, quarantine, "the finished episode exists")
        return None
    salvaged = rescue_path(final)
    try:
        result = salvage_guarded(part_path, salvaged, timeout_s=timeout_s)
        if isinstance(result, InputError):
            _set_aside(part_path, quarantine, str(result))
            return None
        if result.saved == 0:
            _set_aside(part_path, quarantine, "none of its frames could be read")
            return None
        if f"{result.episode_id}.h5" != final.name:
            _set_aside(part_path, quarantine, f"it holds the episode {result.episode_id!r}, unlike its name")
            return None
        publish(salvaged, final)
    finally:
        salvaged.unlink(missing_ok=True)
    if result.saved == result.rows:
        part_path.unlink()
        fsync_path(final.parent)
    else:
        reason = f"only {result.saved} of its {result.rows} frames could be read: they are in {final}"
        _set_aside(part_path, quarantine, reason)
    return final


def rescue_path(final: Path) -> Path:
    """Where this process may write a rescue of ``final``.

    The name is this process's own: the child of one that was killed may write on for a moment.
    """
    remove_dead_rescues(final.parent, f"{glob.escape(final.name)}.*")
    return final.with_name(f"{final.name}.{os.getpid()}{SALVAGE_SUFFIX}")


def remove_dead_rescues(folder: Path, pattern: str) -> None:
    """Removes what processes that are gone left half written; ``pattern`` is a glob of names."""
    for leftover in folder.glob(f"{pattern}{SALVAGE_SUFFIX}"):
        writer = leftover.name.removesuffix(SALVAGE_SUFFIX).rpartition(".")[2]
        if not (writer.isdecimal() and process_exists(int(writer))):
            leftover.unlink(missing_ok=True)


def _set_aside(part_path: Path, quarantine: Path, reason: str) -> None:
    reason = without_path(reason, part_path)
    target = to_quarantine(part_path, quarantine, reason)
    _LOG.warning("moved %s to %s: %s", part_path.name, target, reason)


def salvage_guarded(
    source: Path, target: Path, *, row_limit: int | None = None, timeout_s: float = RECOVERY_TIMEOUT_S
) -> Salvage | InputError:
    """:func:`salvage` in a child process; an ``InputError`` where that crashed, hung or could not read."""
    limit_s = timeout_s + source.stat().st_size / _BYTES_PER_S
    [(_, result)] = guarded_map(_salvage_job, [(source, target, row_limit)], timeout_s=limit_s)
    return result


def _salvage_job(job: tuple[Path, Path, int | None]) -> Salvage:
    source, target, row_limit = job
    try:
        return salvage(source, target, row_limit)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise InputError(f"{source} cannot be read: {plain_reason(error)}") from error


def salvage(source_path: Path, target_path: Path, row_limit: int | None = None) -> Salvage:
    """Copies whole rows to the new episode file ``target_path``, marked truncated; at most ``row_limit``.

    Where these are not all the frames that the source's fingerprint vouches for, its ``extra`` says so:
    a fingerprint of all frames tells nothing of the first few, so damage to them would go unseen.
    Raises what h5py raises for a file that cannot be read at all.
    """
    fingerprint = Fingerprint()
    rows: list[Row] = []
    count = 0
    with (
        h5py.File(source_path, "r", locking=False) as source,
        h5py.File(target_path, "w", libver=LIBVER, locking=LOCKING) as target,
    ):
        info = read_info(source, source_path)
        create_datasets(target, info.cameras)
        for row in islice(whole_rows(source, info), row_limit):
            if count == 0:
                images = {camera: decode(jpeg) for camera, jpeg in row.jpegs.items()}
                write_image_shapes(
                    target, {c: image.shape for c, image in images.items() if image is not None}
                )
            fingerprint.update(row)
            rows.append(row)
            count += 1
            if len(rows) == _ROWS_PER_WRITE:
                append_rows(target, rows)
                rows = []
        append_rows(target, rows)
        length = len(source["timestamp_ns"])
        _copy_foreign(source, target, count, length)
        recorded = str(source.attrs.get("fingerprint", ""))  # only a finished file has one
        if recorded and recorded != fingerprint.hexdigest():
            info = replace(info, extra={**info.extra, CUT_FROM: recorded})
        finish(target, replace(info, truncated=True), fingerprint, int(source.attrs.get("dropped", 0)))
    fsync_path(target_path)
    return Salvage(count, length, info.id)


def _copy_foreign(source: h5py.File, target: h5py.File, count: int, length: int) -> None:
    """Keeps the first ``count`` of ``length`` rows of each column that an import brought and can be read."""
    try:
        names = read_foreign_names(source)
    except (OSError, RuntimeError, ValueError, KeyError):
        return
    for name in names:
        try:
            dataset = source[f"{FOREIGN}/{name}"]
            per_frame = dataset.ndim > 0 and len(dataset) == length
            write_foreign(target, {name: dataset[:count] if per_frame else dataset[()]})
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, InputError) as error:
            _LOG.warning("the imported column %s could not be saved: %s", name, error)


def whole_rows(file: h5py.File, info: EpisodeInfo) -> Iterator[Row]:
    """The rows before the first that is not whole: unreadable, unfilled, or an image does not decode."""
    rows = iterate_rows(file, info.cameras, rows_per_read=1)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except (OSError, RuntimeError, ValueError):
            return  # HDF5 found a link to something that had not been written yet
        times = (row.timestamp_ns, *row.camera_timestamp_ns.values())
        if row.source == NO_SOURCE or NO_TIMESTAMP in times:
            return
        if any(decode(jpeg) is None for jpeg in row.jpegs.values()):
            return
        yield row
