"""Turns what a killed recording left behind into an episode marked truncated.

The left-over is only read: the rows that reached the disk are written to a new file, which takes the
episode's final name once it is complete. The left-over then goes if all of its rows are in the new file;
otherwise, and if nothing can be read, it moves to a quarantine folder for a person to look at.

The reading happens in a child process with a time limit: on a file with damaged inner links, which a
power cut can leave, the HDF5 library may crash or loop for ever.
"""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
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
    iterate_rows,
    read_info,
    write_image_shapes,
)
from pipeline.errors import InputError
from pipeline.frame_codec import decode

_LOG = logging.getLogger(__name__)
_SALVAGE_SUFFIX = ".salvage"
_ROWS_PER_WRITE = 64
_NOTHING, _SOME, _ALL = 3, 4, 5  # how the child process says how many rows it saved
_BYTES_PER_S = 2e6  # slower than any disk and JPEG decoder we have met


def recover(part_path: Path, quarantine: Path | None = None, timeout_s: float = 60.0) -> Path | None:
    """Finishes one left-over ``<id>.h5.part``; returns the episode's path, or ``None`` if there is none.

    There is none when the recording still goes on (its writer holds the file's lock), or when no
    frame of it can be read: then the file moves to ``quarantine`` (default: the folder of that name
    beside it). Doing it again, also after a crash in the middle, gives the same result. ``timeout_s``
    is for a small file; large ones get more.
    """
    if not part_path.name.endswith(f".h5{PART_SUFFIX}"):
        raise InputError(f"{part_path} is no unfinished recording: its name does not end in .h5{PART_SUFFIX}")
    try:
        # HDF5's own lock would not tell a recording that goes on in this very process, nor two recoveries.
        with part_path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not part_path.exists():
                return None  # whoever held the lock before has just finished it
            return _recover_held(part_path, quarantine or part_path.parent / "quarantine", timeout_s)
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
        _quarantine(part_path, quarantine, "the finished episode exists")
        return None
    salvaged = final.with_name(final.name + _SALVAGE_SUFFIX)
    try:
        saved = _salvage_in_child(part_path, salvaged, timeout_s + part_path.stat().st_size / _BYTES_PER_S)
        if saved in (_SOME, _ALL):
            publish(salvaged, final)
    finally:
        salvaged.unlink(missing_ok=True)
    if saved == _ALL:
        part_path.unlink()
        fsync_path(final.parent)
        return final
    _quarantine(part_path, quarantine, f"{'not all' if saved == _SOME else 'none'} of it could be read")
    return final if saved == _SOME else None


def _salvage_in_child(part_path: Path, salvaged: Path, timeout_s: float) -> int:
    """Runs :func:`salvage` in a process of its own; returns what it returns, ``_NOTHING`` if it died."""
    search_path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    try:
        child = subprocess.run(
            [sys.executable, "-m", "pipeline.episode_recovery", str(part_path), str(salvaged)],
            timeout=timeout_s,
            check=False,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search_path))},
        )
    except subprocess.TimeoutExpired:
        _LOG.warning("reading %s did not end within %.0f s", part_path, timeout_s)
        return _NOTHING
    if child.returncode not in (_NOTHING, _SOME, _ALL):
        _LOG.warning("reading %s ended with status %d", part_path, child.returncode)
        return _NOTHING
    return child.returncode


def salvage(part_path: Path, salvaged: Path) -> int:
    """Copies the whole rows of ``part_path`` to the new episode file ``salvaged``, marked truncated."""
    fingerprint = Fingerprint()
    rows: list[Row] = []
    count = 0
    with (
        h5py.File(part_path, "r", locking=False) as source,
        h5py.File(salvaged, "w", libver=LIBVER, locking=LOCKING) as target,
    ):
        info = read_info(source, part_path)
        create_datasets(target, info.cameras)
        for row in whole_rows(source, info):
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
        finish(target, replace(info, truncated=True), fingerprint, int(source.attrs.get("dropped", 0)))
        if count == 0:
            return _NOTHING
        return _ALL if count == len(source["timestamp_ns"]) else _SOME


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


def _quarantine(path: Path, folder: Path, reason: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    count = 1
    while target.exists():
        count += 1
        target = folder / f"{path.name}.{count}"
    path.replace(target)
    _LOG.warning("moved %s to %s: %s", path, target, reason)


if __name__ == "__main__":
    sys.exit(salvage(Path(sys.argv[1]), Path(sys.argv[2])))
