"""Reads every frame of an episode once; keeps what a check needs: numbers, and facts about images."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import h5py
import numpy as np

from pipeline.episode import STATE_FIELDS, EpisodeInfo
from pipeline.episode_layout import Fingerprint, Row, iterate_rows

# What h5py raises for frames that cannot be read.
READ_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError)
_SOF_MARKERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})


@dataclass
class CameraScan:
    """One camera's images: grey level, size, and which are the same.

    ``grey`` has the mean level (0 to 255) of each image, NaN where it cannot be decoded. ``sizes`` maps each
    (height, width) met, in pixels, to the first frame that has it. ``still`` lists the runs of byte-equal
    images as (first, last) frame, of two frames and more.
    """

    grey: list[float] = field(default_factory=list)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    still: list[tuple[int, int]] = field(default_factory=list)
    taken_ns: list[int] = field(default_factory=list)
    _first: int = 0
    _jpeg: bytes | None = None

    def add(self, row: int, jpeg: np.ndarray, taken_ns: int) -> None:
        """Looks at the image of one frame; frames come in order."""
        self.taken_ns.append(taken_ns)
        content = jpeg.tobytes()
        if content != self._jpeg:
            self.end(row)
            self._first, self._jpeg = row, content
            level, size = look(jpeg)
            self.grey.append(level)
            if size is not None:
                self.sizes.setdefault(size, row)
        else:
            self.grey.append(self.grey[-1])

    def end(self, length: int) -> None:
        """There are no frames from ``length`` on."""
        if self._jpeg is not None and length - self._first >= 2:
            self.still.append((self._first, length - 1))


@dataclass
class Scan:
    """All frames that can be read: ``length`` of them. ``error`` says why there are no more, if so."""

    length: int
    error: str | None
    fingerprint: str
    state: dict[str, np.ndarray]
    actions: np.ndarray
    policy_actions: np.ndarray
    sources: np.ndarray
    times_ns: np.ndarray
    cameras: dict[str, CameraScan]


def scan_rows(file: h5py.File, info: EpisodeInfo) -> Scan:
    """Reads the frames in order up to the first that cannot be read. Memory does not grow with the images.

    Returns arrays of the schema's shapes and dtypes with ``length`` rows. Expects a file whose
    datasets are all there and of the right types.
    """
    fingerprint = Fingerprint()
    cameras = {camera: CameraScan() for camera in info.cameras}
    numbers: list[Row] = []
    # In batches, which is quick; from a batch that cannot be read on, frame by frame.
    error = None
    for rows_per_read in (64, 1):
        known = len(numbers)
        try:
            for number, row in enumerate(iterate_rows(file, info.cameras, rows_per_read)):
                if number < known:
                    continue
                fingerprint.update(row)
                for camera, scan in cameras.items():
                    scan.add(number, row.jpegs[camera], row.camera_timestamp_ns[camera])
                row.jpegs.clear()
                numbers.append(row)
        except READ_ERRORS as problem:
            error = " ".join(str(problem).split()) or type(problem).__name__
        if error is None:
            break
    for scan in cameras.values():
        scan.end(len(numbers))
    return Scan(
        length=len(numbers),
        error=error,
        fingerprint=fingerprint.hexdigest(),
        state={
            f.name: np.array([row.state[f.name] for row in numbers], np.float32).reshape(-1, *f.shape)
            for f in STATE_FIELDS
        },
        actions=np.array([row.action for row in numbers], np.float32).reshape(-1, 7),
        policy_actions=np.array([row.policy_action for row in numbers], np.float32).reshape(-1, 7),
        sources=np.array([row.source for row in numbers], np.uint8),
        times_ns=np.array([row.timestamp_ns for row in numbers], np.int64),
        cameras=cameras,
    )


def look(jpeg: np.ndarray) -> tuple[float, tuple[int, int] | None]:
    """The mean grey level (0 to 255) and (height, width) in pixels of JPEG bytes (uint8, 1-D).

    NaN and ``None`` if they are no whole JPEG. Decodes at an eighth of the resolution: enough to see
    black, and cheap.
    """
    if len(jpeg) < 4 or jpeg[-2] != 0xFF or jpeg[-1] != 0xD9:
        return np.nan, None
    try:
        small = cv2.imdecode(jpeg, cv2.IMREAD_REDUCED_GRAYSCALE_8)
    except cv2.error:  # a size that damage has made absurd
        small = None
    size = jpeg_size(jpeg.tobytes())
    if small is None or size is None:
        return np.nan, None
    return float(small.mean()), size


def jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels from the header (ITU-T T.81, B.2.2); ``None`` without one."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker in _SOF_MARKERS:
            return int.from_bytes(jpeg[at + 5 : at + 7]), int.from_bytes(jpeg[at + 7 : at + 9])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return None
