"""Frames in and out of their stored form: checked against the schema, images as JPEG."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.episode import ACTION_FIELD, STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_layout import Row
from pipeline.errors import Failure, InputError

JPEG_QUALITY = 95
# Full-resolution colour: at 84 pixels a cube is a few pixels wide, and halved chroma would smear it.
_JPEG_OPTIONS = (
    cv2.IMWRITE_JPEG_QUALITY,
    JPEG_QUALITY,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


def checked_copy(frame: Frame, info: EpisodeInfo, image_shapes: dict[str, tuple[int, ...]]) -> Frame:
    """A copy of ``frame`` with the schema's dtypes and ``policy_action`` filled with NaN where absent.

    ``image_shapes`` holds each camera's shape; a camera not yet in it is added with this frame's.
    Raises ``InputError`` that names the field whose shape, dtype or key does not fit.
    """
    where = f"episode {info.id}"
    state = {}
    for field in STATE_FIELDS:
        if field.name not in frame.state:
            raise InputError(f"{where}: the frame's state lacks {field.name!r}")
        state[field.name] = _array(frame.state[field.name], field.shape, f"{where}: state {field.name!r}")
    action = _array(frame.action, ACTION_FIELD.shape, f"{where}: action")
    if frame.policy_action is None:
        policy_action = np.full(ACTION_FIELD.shape, np.nan, np.float32)
    else:
        policy_action = _array(frame.policy_action, ACTION_FIELD.shape, f"{where}: policy_action")
    if set(frame.images) != set(info.cameras) or set(frame.camera_timestamp_ns) != set(info.cameras):
        raise InputError(
            f"{where}: the frame has images of {sorted(frame.images)} and times of "
            f"{sorted(frame.camera_timestamp_ns)}, the episode's cameras are {sorted(info.cameras)}"
        )
    times = {camera: int(time) for camera, time in frame.camera_timestamp_ns.items()}
    if min(frame.timestamp_ns, *times.values(), 0) < 0:
        raise InputError(f"{where}: a timestamp is negative")
    images = {c: _image(frame.images[c], f"{where}: camera {c!r}", image_shapes.get(c)) for c in info.cameras}
    for camera, image in images.items():
        image_shapes.setdefault(camera, image.shape)
    source = Source(frame.source)
    return Frame(state, images, action, source, int(frame.timestamp_ns), times, policy_action)


def encode(frame: Frame) -> Row:
    """A frame as it is stored: images become JPEG, quality 95 without chroma subsampling."""
    jpegs = {}
    for camera, image in frame.images.items():
        encoded, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG_OPTIONS)
        if not encoded:
            raise Failure(f"camera {camera!r}: a {image.shape} image could not be encoded as JPEG")
        jpegs[camera] = jpeg
    assert frame.policy_action is not None  # checked_copy has filled it in
    return Row(
        state=frame.state,
        jpegs=jpegs,
        action=frame.action,
        policy_action=frame.policy_action,
        source=int(frame.source),
        timestamp_ns=frame.timestamp_ns,
        camera_timestamp_ns=frame.camera_timestamp_ns,
    )


def decode(jpeg: np.ndarray) -> np.ndarray | None:
    """JPEG bytes (uint8, 1-D) as H×W×3 uint8 RGB; ``None`` if they are no whole JPEG."""
    if len(jpeg) < 4 or jpeg[-2] != 0xFF or jpeg[-1] != 0xD9:  # a cut JPEG would decode to a grey rest
        return None
    image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
    return None if image is None else np.asarray(image, dtype=np.uint8)


def _array(values: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    array = np.array(values, dtype=np.float32)
    if array.shape != shape:
        raise InputError(f"{what} has shape {array.shape}, expected {shape}")
    return array


def _image(image: np.ndarray, what: str, expected: tuple[int, ...] | None) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"{what} gave {image.dtype} {image.shape}, expected uint8 height×width×3")
    if expected is not None and image.shape != expected:
        raise InputError(f"{what} gave {image.shape} after {expected} in the episode's first frame")
    return image.copy()
