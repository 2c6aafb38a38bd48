"""What a policy server and its client say to each other: msgpack maps of texts, numbers and image bytes.

Requests have a key ``do``: ``hello`` (with ``protocol``), ``reset`` (``task``, ``seed``), ``drop`` (what is
left of a plan), ``plan`` and ``act`` (both with an observation; ``plan`` of a policy that looks at several
with ``before``, a list of those of the control steps before it, oldest first). Replies have ``error`` and
``kind`` (``input`` or ``failure``), or what was asked for. Nothing here can run code: no pickle, no names of
types.
A message that is not as described raises :class:`BadMessage`, whatever bytes it holds.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import cv2
import msgpack  # type: ignore[import-untyped]  # ships no types of its own
import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.episode import ACTION_NAMES
from pipeline.frame_codec import decode

PROTOCOL_VERSION = 2  # 2: observations before the present one, and sub-tasks
MAX_MESSAGE_BYTES = 64 * 2**20  # five 4-megapixel cameras, uncompressed
MAX_IMAGE_SIDE = 4096  # pixels
MAX_MESSAGE_PIXELS = 2**26  # of all images of a message, decoded: 192 MiB
MAX_PLAN_STEPS = 1000
MAX_OBSERVED_STEPS = 64
_MAX_ENTRIES = 256  # numbers, and cameras, in one observation


class BadMessage(ValueError):
    """Bytes that are no message of this protocol; the text says what is wrong with them."""


def pack(message: Mapping[str, Any]) -> bytes:
    """The message's bytes. Raises ``BadMessage`` where it would be larger than a receiver takes."""
    packed: bytes = msgpack.packb(message, use_bin_type=True)
    if len(packed) > MAX_MESSAGE_BYTES:
        raise BadMessage(
            f"a message of {len(packed) / 2**20:.0f} MiB; at most {MAX_MESSAGE_BYTES // 2**20} MiB are sent: "
            "use smaller images or JPEG"
        )
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """The message in ``data``, a map with texts as keys. Raises ``BadMessage``."""
    try:
        message = msgpack.unpackb(data, raw=False, strict_map_key=True, ext_hook=_no_extensions)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise BadMessage(f"{len(data)} bytes that are not msgpack") from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise BadMessage("not a map from texts")
    return message


def text(message: Mapping[str, Any], key: str, longest: int = 4096) -> str:
    """``message[key]`` as a text. Raises ``BadMessage``."""
    value = message.get(key)
    if not isinstance(value, str) or len(value) > longest:
        raise BadMessage(f"{key!r} is no text of at most {longest} characters")
    return value


def seed(message: Mapping[str, Any]) -> int | None:
    """The ``seed`` of a reset, ``None`` where it is left to the policy. Raises ``BadMessage``."""
    value = message.get("seed")
    if value is not None and (
        not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63
    ):
        raise BadMessage("'seed' is neither empty nor a whole number from 0")
    return value


def observation_message(
    observation: Mapping[str, Any], numbers: Sequence[str], cameras: Sequence[str], jpeg_quality: int | None
) -> dict[str, Any]:
    """The part of an observation that a policy reads: ``numbers`` and images of ``cameras``.

    Images are sent as they are, or as JPEG of that quality (1 to 100). Raises ``KeyError`` with the name of
    the first entry that the observation lacks.
    """
    return {
        "numbers": {name: float(observation[name]) for name in numbers},
        "images": {name: _image_message(observation[name], jpeg_quality) for name in cameras},
    }


def _image_message(image: np.ndarray, jpeg_quality: int | None) -> dict[str, Any]:
    height, width, _ = image.shape
    message: dict[str, Any] = {"height": height, "width": width}
    if jpeg_quality is None:
        return message | {"rgb": np.ascontiguousarray(image, dtype=np.uint8).tobytes()}
    options = (cv2.IMWRITE_JPEG_QUALITY, jpeg_quality)
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not encoded:
        raise BadMessage(f"an image of {width}x{height} could not be encoded as JPEG")
    return message | {"jpeg": data.tobytes()}


def observation_from(message: Mapping[str, Any], cameras: Collection[str]) -> dict[str, Any]:
    """The inverse of :func:`observation_message`: a float per number, uint8 (H, W, 3) RGB per camera.

    Images of other cameras than ``cameras`` are not decoded. Raises ``BadMessage`` that names the entry which
    is not as it should be, and where the images are too large together, before one is decoded.
    """
    _bound_pixels([message], cameras)
    return _observation(message, cameras)


def _observation(message: Mapping[str, Any], cameras: Collection[str]) -> dict[str, Any]:
    numbers = message.get("numbers")
    if not isinstance(numbers, dict) or len(numbers) > _MAX_ENTRIES:
        raise BadMessage(f"an observation without 'numbers', at most {_MAX_ENTRIES}")
    observation: dict[str, Any] = {}
    for name, value in numbers.items():
        if not isinstance(value, float) or not np.isfinite(value):
            raise BadMessage(f"{name!r} is no finite number")
        observation[name] = value
    for camera, image in _images(message, cameras).items():
        observation[camera] = _image_from(camera, image)
    return observation


def _images(message: Mapping[str, Any], cameras: Collection[str]) -> dict[str, Any]:
    """Those of ``cameras``, not looked at yet."""
    images = message.get("images")
    if not isinstance(images, dict) or len(images) > _MAX_ENTRIES:
        raise BadMessage(f"an observation without 'images', at most {_MAX_ENTRIES}")
    return {camera: images[camera] for camera in cameras if camera in images}


def _bound_pixels(messages: Iterable[Mapping[str, Any]], cameras: Collection[str]) -> None:
    """Raises ``BadMessage`` for more pixels than are decoded of one message: a JPEG's bytes tell little."""
    sizes = (_size(*entry) for message in messages for entry in _images(message, cameras).items())
    pixels = sum(height * width for height, width in sizes)
    if pixels > MAX_MESSAGE_PIXELS:
        raise BadMessage(f"images of {pixels} pixels together; at most {MAX_MESSAGE_PIXELS} are decoded")


def before_from(
    message: Mapping[str, Any], most: int, cameras: Collection[str]
) -> list[dict[str, Any]] | None:
    """The observations before the present one, oldest first; ``None`` where the message has none.

    Read as :func:`observation_from` does; the bound holds for them and the present one together. Raises
    ``BadMessage`` for one that is none, and for more than ``most``.
    """
    before = message.get("before")
    if before is None:
        return None
    if not isinstance(before, list) or not all(isinstance(one, dict) for one in before):
        raise BadMessage("'before' is no list of observations")
    if len(before) > most:
        raise BadMessage(f"{len(before)} observations before the present one, the policy looks at {most}")
    _bound_pixels([message, *before], cameras)
    return [_observation(one, cameras) for one in before]


def _size(camera: str, message: Any) -> tuple[int, int]:
    """Height and width that an image says it has."""
    if not isinstance(message, dict):
        raise BadMessage(f"camera {camera!r}: not an image")
    height, width = message.get("height"), message.get("width")
    for side in (height, width):
        if not isinstance(side, int) or not 1 <= side <= MAX_IMAGE_SIDE:
            raise BadMessage(f"camera {camera!r}: sides must be 1 to {MAX_IMAGE_SIDE} pixels")
    assert isinstance(height, int)
    assert isinstance(width, int)
    return height, width


def _image_from(camera: str, message: Any) -> np.ndarray:
    height, width = _size(camera, message)
    rgb, jpeg = message.get("rgb"), message.get("jpeg")
    if isinstance(rgb, bytes):
        if len(rgb) != height * width * 3:
            raise BadMessage(f"camera {camera!r}: {len(rgb)} bytes are not {height}x{width}x3")
        return np.frombuffer(rgb, np.uint8).reshape(height, width, 3).copy()
    if isinstance(jpeg, bytes) and _jpeg_size(jpeg) == (width, height):
        image = decode(np.frombuffer(jpeg, np.uint8))
        if image is not None and image.shape == (height, width, 3):
            return image
    raise BadMessage(f"camera {camera!r}: neither 'rgb' nor a whole 'jpeg' of {width}x{height}")


def _jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """Width and height by the header: read before decoding, as a few bytes may claim gigapixels."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def actions_message(actions: np.ndarray, subtask: str | None = None) -> dict[str, Any]:
    """Actions (n, 7) as float32 bytes, little-endian, so that they arrive bit for bit; and their sub-task."""
    rows = np.ascontiguousarray(actions, dtype="<f4")
    message: dict[str, Any] = {"steps": len(rows), "actions": rows.tobytes()}
    return message if subtask is None else message | {"subtask": subtask}


def actions_from(message: Mapping[str, Any]) -> np.ndarray:
    """The inverse of :func:`actions_message`, float32 (n, 7), n from 1. Raises ``BadMessage``."""
    steps, data = message.get("steps"), message.get("actions")
    if not isinstance(steps, int) or not 1 <= steps <= MAX_PLAN_STEPS or not isinstance(data, bytes):
        raise BadMessage("no actions")
    if len(data) != steps * len(ACTION_NAMES) * 4:
        raise BadMessage(f"{len(data)} bytes are not {steps} actions")
    actions = np.frombuffer(data, "<f4").reshape(steps, len(ACTION_NAMES)).astype(np.float32)
    if not np.isfinite(actions).all():
        raise BadMessage("actions that are not finite")
    return actions


def _no_extensions(code: int, data: bytes) -> Any:
    raise BadMessage(f"a msgpack extension of type {code}")
