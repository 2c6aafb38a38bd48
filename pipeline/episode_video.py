"""An episode's frames as H.264 videos, one file a camera, encoded once and shared by all datasets.

A folder ``<store>/<episode id>/`` holds ``<camera>.mp4`` for each camera at the recorded resolution and
``episode.json``: what it was made from, and each camera's pixel statistics. It appears whole or not at
all. Datasets take hard links of the videos, so never change one in place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np

from pipeline.atomic_folder import building
from pipeline.episode_file import EpisodeReader
from pipeline.errors import Failure, InputError
from pipeline.lerobot_statistics import QUANTILES
from pipeline.verified_frames import decoded_images

# Every second frame is a key frame, so that a random frame costs two decodes at most; the fastest
# preset has no frames that refer forward; one thread makes equal input give equal bytes.
CODEC: Final = "h264"
PIXEL_FORMAT = "yuv420p"
KEY_FRAME_INTERVAL = 2
QUALITY = 18
PRESET = "ultrafast"
_OPTIONS = {"g": str(KEY_FRAME_INTERVAL), "crf": str(QUALITY), "preset": PRESET, "threads": "1"}


@dataclass(frozen=True)
class CameraVideo:
    """One camera's video of an episode.

    ``statistics`` are over all pixels of all frames, RGB scaled to [0, 1]: ``min``, ``max``, ``mean``,
    ``std`` and the :data:`QUANTILES`, each (3, 1, 1) float64, and ``count`` (1,), the number of frames.
    """

    path: Path
    height: int
    width: int
    statistics: dict[str, np.ndarray]


def encode_episode(reader: EpisodeReader, store: Path) -> dict[str, CameraVideo]:
    """The videos of an episode by camera, encoded into ``store`` unless they are there already.

    Safe to run from several processes at once and to kill at any moment. Raises ``InputError`` for a
    frame rate that is not a whole number, for images of odd width or height, and for damaged frames.
    """
    folder = store / reader.info.id
    source = {"fingerprint": reader.fingerprint, "rate_hz": whole_rate(reader), "options": _OPTIONS}
    record = _read_record(folder)
    if record.get("source") != source:
        if reader.computed_fingerprint() != reader.fingerprint:
            raise InputError(f"{reader.path} is damaged: its frames are not those that were recorded")
        cameras: dict[str, Any] = {}
        with building(folder, replace=True) as aside:
            for camera in reader.info.cameras:
                video = aside / f"{camera}.mp4"
                cameras[camera] = _encode(decoded_images(reader, camera), int(reader.info.rate_hz), video)
                if cameras[camera]["statistics"]["count"] != [len(reader)]:
                    raise Failure(f"{reader.path}: the video of camera {camera!r} lost frames")
            record = {"source": source, "cameras": cameras}
            (aside / "episode.json").write_text(json.dumps(record))
    return {
        camera: CameraVideo(
            path=folder / f"{camera}.mp4",
            height=fields["height"],
            width=fields["width"],
            statistics={name: np.array(values) for name, values in fields["statistics"].items()},
        )
        for camera, fields in record["cameras"].items()
    }


def whole_rate(reader: EpisodeReader) -> int:
    """The episode's frame rate in Hz; raises ``InputError`` unless it is a whole number above zero."""
    rate = reader.info.rate_hz
    if rate < 1 or rate != int(rate):
        raise InputError(f"{reader.path} has {rate} frames a second: a dataset needs a whole number")
    return int(rate)


def _encode(images: Iterable[np.ndarray], rate_hz: int, path: Path) -> dict[str, Any]:
    """Writes the video; returns its height, width and pixel statistics in JSON types."""
    # PyAV's own default; LeRobot turns it off, and then every video prints a page of encoder statistics.
    av.logging.set_level(None)
    histogram = np.zeros((3, 256), dtype=np.int64)
    count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODEC, rate_hz, options=_OPTIONS)
        stream.pix_fmt = PIXEL_FORMAT
        period = Fraction(1, rate_hz)
        for image in images:
            if count == 0:
                stream.height, stream.width = _even_size(image, path)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = count
            frame.time_base = period
            container.mux(stream.encode(frame))
            for channel in range(3):
                counted = cv2.calcHist([image], [channel], None, [256], [0, 256])
                histogram[channel] += counted[:, 0].astype(np.int64)
            count += 1
        container.mux(stream.encode())
    statistics = _pixel_statistics(histogram)
    return {
        "height": stream.height,
        "width": stream.width,
        "statistics": {
            "count": [count],
            **{name: values.reshape(3, 1, 1).tolist() for name, values in statistics.items()},
        },
    }


def _even_size(image: np.ndarray, path: Path) -> tuple[int, int]:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        raise InputError(
            f"camera {path.stem!r} has images of {height}×{width} pixels: H.264 needs even numbers"
        )
    return height, width


def _pixel_statistics(histogram: np.ndarray) -> dict[str, np.ndarray]:
    """Exact statistics of 8-bit pixels from how often each level occurs, ``(3, 256)``; levels over 255."""
    levels = np.arange(256) / 255.0
    total = histogram.sum(axis=1)
    cumulative = histogram.cumsum(axis=1)
    mean = histogram @ levels / total
    variance = histogram @ levels**2 / total - mean**2
    present = histogram > 0
    quantiles = {
        # The smallest level that at least this share of the pixels does not exceed.
        name: levels[(cumulative >= share * total[:, None]).argmax(axis=1)]
        for name, share in QUANTILES.items()
    }
    return {
        "min": levels[present.argmax(axis=1)],
        "max": levels[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(variance, 0.0)),
        **quantiles,
    }


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((folder / "episode.json").read_text())
    except FileNotFoundError:
        return {}
    return record
