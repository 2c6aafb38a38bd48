"""One crash-safe HDF5 file an episode: write (:class:`EpisodeWriter`), :func:`recover`, read.

The layout is in :mod:`pipeline.episode_layout` and, for other programs, in docs/episode-format.md.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from pipeline.episode import STATE_FIELDS, EpisodeInfo
from pipeline.episode_attributes import read_info
from pipeline.episode_layout import (
    FOREIGN,
    LOCKING,
    Fingerprint,
    column_type,
    iterate_rows,
    plain_reason,
    read_foreign_names,
)
from pipeline.episode_recovery import recover
from pipeline.episode_writer import EpisodeWriter
from pipeline.errors import InputError
from pipeline.frame_codec import decode

__all__ = ["EpisodeEntry", "EpisodeReader", "EpisodeWriter", "read_entry", "recover"]

_ERRNO = re.compile(r"\berrno = (\d+)")
# None at all, and those of an address or a size that only a damaged file asks for.
_OF_DAMAGE = {0, errno.EINVAL, errno.EFBIG, errno.EOVERFLOW}


@dataclass(frozen=True)
class EpisodeEntry:
    """What can be known of a finished episode without reading a frame. ``length`` is in frames.

    ``fingerprint`` is the hash of the frames (32 hexadecimal digits): equal recordings have equal
    ones, whatever their names and attributes.
    """

    id: str
    path: Path
    info: EpisodeInfo
    length: int
    fingerprint: str


def read_entry(path: Path) -> EpisodeEntry:
    """Reads an episode's attributes and length only. Raises ``InputError`` if it is no episode."""
    with EpisodeReader(path) as reader:
        return EpisodeEntry(reader.info.id, path, reader.info, len(reader), reader.fingerprint)


class EpisodeReader:
    """Reads one episode. Open it with ``with``; every property then reads from the file when asked."""

    def __init__(self, path: Path) -> None:
        """Touches nothing yet."""
        self.path = path
        self._file: h5py.File | None = None
        self._info: EpisodeInfo | None = None

    def __enter__(self) -> Self:
        """Opens the file. Raises ``InputError`` if it is missing, unreadable or not an episode."""
        try:
            file = h5py.File(self.path, "r", locking=LOCKING)
        except FileNotFoundError as error:
            raise InputError(f"there is no episode file {self.path}") from error
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {plain_reason(error)}") from error
        try:
            with _reading(self.path):
                self._info = read_info(file, self.path)
        except InputError:
            file.close()
            raise
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def info(self) -> EpisodeInfo:
        """The episode's attributes."""
        if self._info is None:
            raise InputError(f"{self.path}: open the reader with 'with' first")
        return self._info

    @property
    def fingerprint(self) -> str:
        """The frames' hash as stored when the episode was finished."""
        with _reading(self.path):
            return str(self._open.attrs["fingerprint"])

    @property
    def dropped(self) -> int:
        """How many frames did not fit in the writer's queue and are missing from the episode."""
        with _reading(self.path):
            return int(self._open.attrs["dropped"])

    def __len__(self) -> int:
        """The number of frames T."""
        with _reading(self.path):
            return int(self._open["timestamp_ns"].shape[0])

    def state(self, name: str) -> np.ndarray:
        """One of ``episode.STATE_FIELDS``, float32 (T, k), in that field's unit and frame of reference."""
        if name not in {f.name for f in STATE_FIELDS}:
            raise InputError(f"there is no state field {name!r}; there are {[f.name for f in STATE_FIELDS]}")
        return self._column(f"observation/state/{name}")

    @property
    def actions(self) -> np.ndarray:
        """What was sent, float32 (T, 7), ``episode.ACTION_NAMES``."""
        return self._column("action")

    @property
    def policy_actions(self) -> np.ndarray:
        """What the policy wanted, float32 (T, 7); NaN where none ran."""
        return self._column("policy_action")

    @property
    def sources(self) -> np.ndarray:
        """Who chose the action, uint8 (T,), ``episode.Source``."""
        return self._column("source")

    @property
    def timestamps_ns(self) -> np.ndarray:
        """The steps' times, int64 (T,), ns of the host's real-time clock."""
        return self._column("timestamp_ns")

    def camera_timestamps_ns(self, camera: str) -> np.ndarray:
        """When each step's image was taken, int64 (T,), ns of the host's real-time clock."""
        return self._column(f"camera_timestamp_ns/{self._known(camera)}")

    def jpegs(self, camera: str) -> list[np.ndarray]:
        """The images as stored: T arrays of JPEG bytes, uint8 (n,)."""
        return [np.asarray(j, np.uint8) for j in self._column(f"observation/images/{self._known(camera)}")]

    def stream_jpegs(self, camera: str, rows_per_read: int = 64) -> Iterator[np.ndarray]:
        """As :meth:`jpegs`, one by one, reading ``rows_per_read`` at a time: memory does not grow with T."""
        name = f"observation/images/{self._known(camera)}"
        for start in range(0, len(self), rows_per_read):
            with _reading(self.path):
                block = self._open[name][start : start + rows_per_read]
            if block.dtype != object or len(block) != min(rows_per_read, len(self) - start):
                raise InputError(f"{self.path} is damaged: {name} does not hold {len(self)} images")
            yield from (np.asarray(jpeg, np.uint8) for jpeg in block)

    def image(self, camera: str, i: int) -> np.ndarray:
        """Frame ``i`` of a camera, uint8 (H, W, 3) RGB; negative ``i`` count from the end."""
        length = len(self)
        if not -length <= i < length:
            raise InputError(f"{self.path} has {length} frames, there is no frame {i}")
        with _reading(self.path):
            jpeg = self._open[f"observation/images/{self._known(camera)}"][i % length]
        return self._decoded(jpeg, camera, i)

    def images(self, camera: str) -> np.ndarray:
        """All images of a camera, uint8 (T, H, W, 3) RGB."""
        decoded = [self._decoded(jpeg, camera, i) for i, jpeg in enumerate(self.stream_jpegs(camera))]
        return np.stack(decoded) if decoded else np.empty((0, 0, 0, 3), np.uint8)

    @property
    def foreign_names(self) -> tuple[str, ...]:
        """The columns of another format that an imported episode keeps, sorted; else none."""
        with _reading(self.path):
            return read_foreign_names(self._open)

    def foreign(self, name: str) -> np.ndarray:
        """One of :attr:`foreign_names`, as it was in the recording it was imported from."""
        if name not in self.foreign_names:
            raise InputError(f"{self.path} keeps no foreign column {name!r}")
        return self._column(f"{FOREIGN}/{name}")

    def computed_fingerprint(self) -> str:
        """The hash of the frames as they are now; differs from ``fingerprint`` if the file was damaged."""
        fingerprint = Fingerprint()
        with _reading(self.path):
            for row in iterate_rows(self._open, self.info.cameras):
                fingerprint.update(row)
        return fingerprint.hexdigest()

    @property
    def _open(self) -> h5py.File:
        if self._file is None:
            raise InputError(f"{self.path}: open the reader with 'with' first")
        return self._file

    def _column(self, name: str) -> np.ndarray:
        with _reading(self.path):
            values: np.ndarray = self._open[name][:]
        shape, dtype = column_type(name)
        if dtype is None:
            return values
        if values.shape != (len(self), *shape) or values.dtype != dtype:
            raise InputError(
                f"{self.path} is damaged: {name} is {values.dtype} {values.shape}, expected {dtype} "
                f"{(len(self), *shape)}"
            )
        return values

    def _known(self, camera: str) -> str:
        if camera not in self.info.cameras:
            raise InputError(f"{self.path} has no camera {camera!r}; it has {list(self.info.cameras)}")
        return camera

    def _decoded(self, jpeg: np.ndarray, camera: str, i: int) -> np.ndarray:
        image = decode(np.asarray(jpeg, np.uint8))
        if image is None:
            raise InputError(f"{self.path}: the image of camera {camera!r} in frame {i} is damaged")
        return image


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what h5py raises for a damaged or incomplete file into one clear ``InputError``."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        passing = _disturbance(error)
        if passing is not None:
            raise InputError(f"{path} cannot be read now: {passing.strerror}") from passing
        raise InputError(f"{path} is damaged or incomplete: {error}") from error


def _disturbance(error: Exception) -> OSError | None:
    """The disk's own error, which h5py tells in its text only, under the name of any of its exceptions."""
    found = _ERRNO.search(str(error))
    number = int(found[1]) if found is not None else 0
    if number in _OF_DAMAGE:
        return None
    cause = OSError(number, os.strerror(number))
    cause.__cause__ = error
    return cause
