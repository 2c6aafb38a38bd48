"""Turns what a killed recording left behind into an episode marked truncated.

The left-over is only read: the rows that reached the disk are written to a new file, which takes the
episode's final name once it is complete, and only then does the left-over go. What cannot be read is
moved to a quarantine folder for a person to look at, never deleted.
"""

from __future__ import annotations

import fcntl
import logging
from dataclasses import replace
from pathlib import Path

import h5py

from pipeline.durable_files import fsync_path, publish
from pipeline.episode import EpisodeInfo
from pipeline.episode_layout import (
    LIBVER,
    LOCKING,
    NO_SOURCE,
    NO_TIMESTAMP,
    PART_SUFFIX,
    Fingerprint,
    Row,
    append_rows,
    create_datasets,
    finish,
    read_info,
    read_rows,
    write_image_shapes,
)
from pipeline.errors import InputError
from pipeline.frame_codec import decode

_LOG = logging.getLogger(__name__)
_SALVAGE_SUFFIX = ".salvage"


def recover(part_path: Path, quarantine: Path | None = None) -> Path | None:
    """Finishes one left-over ``<id>.h5.part``; returns the episode's path, or ``None`` if there is none.

    There is none when the recording still goes on (its writer holds the file's lock), or when no
    frame of it can be read: then the file moves to ``quarantine`` (default: the folder of that name
    beside it). Doing it again, also after a crash in the middle, gives the same result.
    """
    if not part_path.name.endswith(f".h5{PART_SUFFIX}"):
        raise InputError(
            f"{part_path} is not an unfinished recording: its name does not end in .h5{PART_SUFFIX}"
        )
    try:
        # HDF5's own lock would not tell a recording that goes on in this very process, nor two recoveries.
        with part_path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not part_path.exists():
                return None  # whoever held the lock before has just finished it
            return _recover_held(part_path, quarantine or part_path.parent / "quarantine")
    except BlockingIOError:
        _LOG.info("%s is still being recorded: left alone", part_path)
        return None
    except FileNotFoundError:
        return None


def _recover_held(part_path: Path, quarantine: Path) -> Path | None:
    final = part_path.with_name(part_path.name.removesuffix(PART_SUFFIX))
    if final.exists():
        # Either the crash came between publishing the rescue and removing the left-over, or somebody
        # put the episode there by other means. Both ways the final file stands.
        _quarantine(part_path, quarantine, "the finished episode exists")
        return None
    try:
        with h5py.File(part_path, "r", locking=False) as file:
            info = read_info(file, part_path)
            rows = written_rows(read_rows(file, info.cameras), info)
            dropped = int(file.attrs.get("dropped", 0))
    except (InputError, OSError, KeyError, ValueError, RuntimeError) as error:
        _quarantine(part_path, quarantine, f"unreadable: {error}")
        return None
    if not rows:
        _quarantine(part_path, quarantine, "no frame of it had reached the disk")
        return None
    _write(final, replace(info, truncated=True), rows, dropped)
    part_path.unlink()
    fsync_path(final.parent)
    return final


def written_rows(rows: list[Row], info: EpisodeInfo) -> list[Row]:
    """The rows before the first that is incomplete: unfilled numbers, or an image that does not decode."""
    for i, row in enumerate(rows):
        unfilled = row.source == NO_SOURCE or NO_TIMESTAMP in (
            row.timestamp_ns,
            *row.camera_timestamp_ns.values(),
        )
        if unfilled or any(decode(row.jpegs[camera]) is None for camera in info.cameras):
            return rows[:i]
    return rows


def _write(final: Path, info: EpisodeInfo, rows: list[Row], dropped: int) -> None:
    salvage = final.with_name(final.name + _SALVAGE_SUFFIX)
    fingerprint = Fingerprint()
    for row in rows:
        fingerprint.update(row)
    with h5py.File(salvage, "w", libver=LIBVER, locking=LOCKING) as file:
        create_datasets(file, info.cameras)
        images = {camera: decode(jpeg) for camera, jpeg in rows[0].jpegs.items()}
        write_image_shapes(file, {c: image.shape for c, image in images.items() if image is not None})
        append_rows(file, rows)
        finish(file, info, fingerprint, dropped)
    publish(salvage, final)


def _quarantine(path: Path, folder: Path, reason: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    count = 1
    while target.exists():
        count += 1
        target = folder / f"{path.name}.{count}"
    path.replace(target)
    _LOG.warning("moved %s to %s: %s", path, target, reason)
