"""An episode's frames, decoded block by block, and checked against the hash that was recorded with them.

A flipped bit can leave a JPEG that still decodes, or a number that still looks like one; only the
fingerprint tells. Memory stays the same however long an episode is, but for its numbers (about 200
bytes a frame).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.episode import POLICY_STATE_FIELDS, STATE_FIELDS, policy_state
from pipeline.episode_file import EpisodeReader
from pipeline.episode_layout import Fingerprint, Row
from pipeline.errors import InputError
from pipeline.frame_codec import decode

ROWS_PER_BLOCK = 64


@dataclass(frozen=True)
class EpisodeColumns:
    """Everything of an episode but its images, each array of T rows in the schema's dtype."""

    states: dict[str, np.ndarray]
    action: np.ndarray
    policy_action: np.ndarray
    source: np.ndarray
    timestamp_ns: np.ndarray
    camera_timestamp_ns: dict[str, np.ndarray]

    @property
    def policy_state(self) -> np.ndarray:
        """(T, 15) float32, :data:`pipeline.episode.POLICY_STATE_NAMES`."""
        return policy_state({name: self.states[name] for name in POLICY_STATE_FIELDS})

    def row(self, i: int, jpegs: dict[str, np.ndarray]) -> Row:
        """Frame ``i`` with these images, as it is hashed."""
        return Row(
            state={name: values[i] for name, values in self.states.items()},
            jpegs=jpegs,
            action=self.action[i],
            policy_action=self.policy_action[i],
            source=int(self.source[i]),
            timestamp_ns=int(self.timestamp_ns[i]),
            camera_timestamp_ns={camera: int(times[i]) for camera, times in self.camera_timestamp_ns.items()},
        )


def read_columns(reader: EpisodeReader) -> EpisodeColumns:
    """All numbers of an episode. Raises ``InputError`` for a damaged file."""
    return EpisodeColumns(
        states={f.name: reader.state(f.name) for f in STATE_FIELDS},
        action=reader.actions,
        policy_action=reader.policy_actions,
        source=reader.sources,
        timestamp_ns=reader.timestamps_ns,
        camera_timestamp_ns={camera: reader.camera_timestamps_ns(camera) for camera in reader.info.cameras},
    )


def image_blocks(reader: EpisodeReader, columns: EpisodeColumns, size: int) -> Iterator[np.ndarray]:
    """The images of all cameras as ``(rows, cameras, size, size, 3)`` uint8 RGB, 64 rows or fewer a block.

    Raises ``InputError`` at a damaged image, and after the last block where the episode is not the one
    that was recorded: until the iterator has ended, nothing that came out of it may be relied on.
    """
    cameras, length = reader.info.cameras, len(reader)
    streams = [reader.stream_jpegs(camera, ROWS_PER_BLOCK) for camera in cameras]
    fingerprint = Fingerprint()
    for start in range(0, length, ROWS_PER_BLOCK):
        rows = range(start, min(start + ROWS_PER_BLOCK, length))
        block = np.empty((len(rows), len(cameras), size, size, 3), dtype=np.uint8)
        for row in rows:
            jpegs = {camera: next(stream) for camera, stream in zip(cameras, streams, strict=True)}
            fingerprint.update(columns.row(row, jpegs))
            for column, (camera, jpeg) in enumerate(jpegs.items()):
                block[row - start, column] = resized(_decoded(jpeg, reader, camera, row), size)
        yield block
    if fingerprint.hexdigest() != reader.fingerprint:
        raise InputError(f"{reader.path} is damaged: its frames are not those that were recorded")


def decoded_images(reader: EpisodeReader, camera: str) -> Iterator[np.ndarray]:
    """A camera's images one by one, uint8 (H, W, 3) RGB: a long recording need not fit in memory.

    Raises ``InputError`` at the first damaged one; does not compare the fingerprint.
    """
    for row, jpeg in enumerate(reader.stream_jpegs(camera)):
        yield _decoded(jpeg, reader, camera, row)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """The whole of ``image`` (H, W, 3) uint8, squeezed into size × size."""
    if image.shape[:2] == (size, size):
        return image
    # Area averaging is the one OpenCV mode that neither aliases nor blurs when it makes images smaller.
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _decoded(jpeg: np.ndarray, reader: EpisodeReader, camera: str, row: int) -> np.ndarray:
    image = decode(jpeg)
    if image is None:
        raise InputError(f"{reader.path}: the image of camera {camera!r} in frame {row} is damaged")
    return image
