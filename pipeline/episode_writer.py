"""Writes an episode's HDF5 file so that a crash loses at most the last second of it.

A recording is ``<id>.h5.part`` until :meth:`EpisodeWriter.close` has flushed and fsynced it and renamed
it to ``<id>.h5``; from then on nothing changes it. A process that dies, or is killed, in mid-episode
leaves the ``.part``, in which everything up to the last flush can be read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from pipeline.durable_files import fsync_path, publish
from pipeline.episode import OPTIONAL_FIELDS, EpisodeInfo, Frame
from pipeline.episode_attributes import finish, write_info
from pipeline.episode_layout import (
    LIBVER,
    LOCKING,
    PART_SUFFIX,
    Fingerprint,
    Row,
    append_rows,
    create_datasets,
    write_foreign,
    write_image_shapes,
)
from pipeline.errors import Failure, InputError
from pipeline.frame_codec import checked_copy, encode

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPARE_BYTES = 256 * 1024  # more than HDF5 needs besides the images to write a second and finish the file


class _NoRoomError(OSError):
    """There is too little room for what is to be written; nothing of it was written."""


class EpisodeWriter:
    """Writes one episode from a thread of its own, so that a slow disk does not delay the control loop.

    Use it as a context manager: leaving it normally closes the episode, leaving it by an exception
    closes it marked truncated, so that what was recorded is kept. ``dropped`` counts the frames that
    did not fit in the queue; it is also an attribute of the file.
    """

    def __init__(
        self,
        path: Path,
        info: EpisodeInfo,
        flush_interval_s: float = 1.0,
        *,
        queue_size: int = 64,
        replace_unfinished: bool = False,
        foreign: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Creates ``<path>.part`` and its folder.

        ``queue_size`` is in frames. ``replace_unfinished`` starts over where a dead process left a
        ``.part`` of the same name (for simulations, which can record the same episode again).
        ``foreign`` holds columns of an imported recording, numbers or booleans, kept as they are.
        Raises ``InputError`` if the episode exists or is being recorded, for unknown names in
        ``info.missing``, and for a foreign column that cannot be kept.
        """
        if path.suffix != ".h5":
            raise InputError(f"an episode's file must end in .h5, not {path.name!r}")
        if path.exists():
            raise InputError(f"episode {path} exists already and finished episodes are never overwritten")
        if len(set(info.cameras)) != len(info.cameras) or any(
            "/" in c or c in ("", ".") for c in info.cameras
        ):
            raise InputError(
                f"episode {info.id}: camera names must be distinct and hold no '/': {info.cameras}"
            )
        unknown = sorted(set(info.missing) - set(OPTIONAL_FIELDS))
        if unknown:
            raise InputError(f"episode {info.id}: missing {unknown[0]!r} is none of {list(OPTIONAL_FIELDS)}")
        self.path = path
        self.info = info
        self.dropped = 0
        self._part = path.with_name(path.name + PART_SUFFIX)
        self._flush_interval_s = flush_interval_s
        self._image_shapes: dict[str, tuple[int, ...]] = {}
        self._written = 0
        self._fingerprint = Fingerprint()
        self._error: Exception | None = None
        self._has_raised = False
        self._abandoned = False
        self._closed = False
        self._published = False
        self._queue: queue.Queue[Frame | None] = queue.Queue(queue_size)
        self._file = self._create(replace_unfinished, foreign or {})
        # Held open for as long as the file: HDF5 writes out a dataset when its last handle is freed, and an
        # error in there is lost.
        self._datasets = _datasets(self._file)
        self._thread = threading.Thread(target=self._run, name=f"episode-{info.id}", daemon=True)
        self._thread.start()

    def _create(self, replace_unfinished: bool, foreign: Mapping[str, np.ndarray]) -> h5py.File:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = h5py.File(self._part, "w" if replace_unfinished else "x", libver=LIBVER, locking=LOCKING)
        except OSError as error:
            if self._part.exists():
                raise InputError(
                    f"{self._part} exists: another process records it, or died and left it to be recovered"
                ) from error
            raise Failure(f"cannot create {self._part}: {error}") from error
        try:
            # Marked truncated until close() says otherwise: a file cut short then says so by itself.
            write_info(file, replace(self.info, truncated=True))
            create_datasets(file, self.info.cameras)
            write_foreign(file, foreign)
            file.flush()
        except BaseException:
            file.close()
            self._part.unlink()
            raise
        return file

    def append(self, frame: Frame, block: bool = True) -> None:
        """Queues one frame (its arrays are copied, so the caller may reuse its buffers).

        With ``block=True``, for simulation, waits while the queue is full. With ``block=False``, for
        a robot, returns at once and counts the frame in ``dropped`` if it does not fit.
        Raises ``InputError`` for a frame that does not fit the schema and ``Failure`` if the writer
        thread failed (disk full, for example); what it wrote before stays recoverable.
        """
        if self._closed:
            raise InputError(f"episode {self.info.id} is closed")
        self._raise_error()
        copy = checked_copy(frame, self.info, self._image_shapes)
        try:
            self._queue.put(copy, block=block)
        except queue.Full:
            self.dropped += 1

    def close(
        self,
        operator_mark: str | None = None,
        truncated: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> Path | None:
        """Writes what is queued, then publishes the episode under its final name and returns that.

        ``operator_mark`` is the operator's own success/failure key; ``extra`` is JSON that joins what
        ``info.extra`` holds already, for what was only known at the end. An episode with no frame is
        discarded and ``None`` returned. Closing again changes nothing. Raises ``Failure`` if the
        writer thread failed, leaving the ``.part`` for recovery. Of a disk that was about to be full it
        raises only if :meth:`append` could not, and the episode is kept up to there, as truncated.
        """
        if self._closed:
            return self.path if self._published else None
        self._stop()
        if self._abandoned:
            self._raise_error()
        truncated = truncated or self._error is not None
        if not self._written:
            self._file.close()
            self._part.unlink()
            self._raise_error(again=False)
            return None
        mark = self.info.operator_mark if operator_mark is None else operator_mark
        self.info = replace(
            self.info,
            operator_mark=mark,
            truncated=truncated or self.info.truncated,
            extra={**self.info.extra, **(extra or {})},
        )
        try:
            finish(self._file, self.info, self._fingerprint, self.dropped)
            self._file.close()
        except (OSError, RuntimeError) as error:  # h5py raises either, depending on where HDF5 failed
            raise Failure(self._unwritable(error)) from error
        if self.path.exists():
            raise Failure(f"{self.path} appeared while it was recorded; {self._part} holds the recording")
        publish(self._part, self.path)
        self._published = True
        self._raise_error(again=False)
        return self.path

    def discard(self) -> None:
        """Throws the recording away; nothing is left of it. After :meth:`close`, changes nothing."""
        if not self._closed:
            self._stop()
            with contextlib.suppress(
                OSError, RuntimeError
            ):  # what a full disk could not take is not wanted any more
                self._file.close()
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the episode; as truncated where the body raised, whose exception then goes on."""
        if error is None:
            self.close()
            return
        try:
            self.close(truncated=True)
        except Failure as second:
            error.add_note(f"and the episode could not be closed: {second}")

    def _raise_error(self, *, again: bool = True) -> None:
        if self._error is not None and (again or not self._has_raised):
            self._has_raised = True
            raise Failure(self._unwritable(self._error)) from self._error

    def _unwritable(self, error: Exception) -> str:
        """One line for the operator; HDF5's own runs over several and does not say what to do."""
        reason = " ".join(str(error).split())
        full = [code for code in _FULL if f"errno = {code}," in reason or getattr(error, "errno", 0) == code]
        if full:
            repair = "then 'recap episodes check --repair' recovers it"
            kept = repair if self._abandoned else "the episode is kept as far as it went"
            reason = f"{os.strerror(full[0])}; free some space, {kept}"
        return f"could not write {self._part}: {reason}"

    def _abandon(self) -> None:
        """Leaves the file as it is after a write that failed.

        HDF5 would try to write the rest again and again, with every object that is freed, and can crash
        over it when the process ends. So it is given nothing to fail on: a file that takes everything.
        """
        self._abandoned = True
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, self._file.id.get_vfd_handle())
            os.close(nowhere)
            self._file.close()

    def _stop(self) -> None:
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        """The writer thread: encodes at once, writes and flushes once in each flush interval."""
        rows: list[Row] = []
        next_flush = time.monotonic() + self._flush_interval_s
        stopping = False
        while not stopping:
            # After an error only empties the queue: an append that waits for room would wait for ever.
            wait_s = None if self._error is not None else max(next_flush - time.monotonic(), 0.0)
            try:
                frame = self._queue.get(timeout=wait_s)
                stopping = frame is None
            except queue.Empty:
                frame = None
            if self._error is not None:
                continue
            try:
                if frame is not None:
                    rows.append(encode(frame))
                if stopping or time.monotonic() >= next_flush:
                    self._flush(rows)
                    rows = []
                    next_flush = time.monotonic() + self._flush_interval_s
            except Exception as error:  # whatever it is, the thread that appends must learn of it
                if not isinstance(error, _NoRoomError):
                    self._abandon()
                self._error = error

    def _flush(self, rows: list[Row]) -> None:
        if not rows:
            return
        free = os.statvfs(self._part.parent)
        wanted = sum(jpeg.nbytes for row in rows for jpeg in row.jpegs.values()) + _SPARE_BYTES
        if free.f_bavail * free.f_frsize < wanted:
            raise _NoRoomError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not self._written:
            write_image_shapes(self._file, self._image_shapes)
        self._file.attrs["dropped"] = self.dropped
        append_rows(self._file, rows)
        self._file.flush()
        fsync_path(self._part)
        for row in rows:
            self._fingerprint.update(row)
        self._written += len(rows)


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found
