"""Films of episodes for people: one H.264 MP4 a camera, made once, that any browser plays and steps.

Inputs: a finished episode file. Output: a folder ``workspace/cache/films/<id>-<fingerprint>-v<version>/``
with an MP4 for each camera and ``film.json``; it appears whole or not at all, so two processes that make the
same one do no harm. A film can be deleted at any time; it is made again when it is next looked at.

Datasets have videos of their own (``pipeline.episode_video``), which cannot serve here: they keep the
recorded resolution at high quality, with a key frame at every second frame, take only whole frame rates and
even sizes, and refuse a recording with a single damaged value. Films are for looking: a sixth of the bytes,
and of any recording that decodes. Recordings may be damaged so badly that the HDF5 library hangs; so films
are made in a guarded child process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from labeling_app.driving import FrameSpan, frame_spans
from pipeline.atomic_folder import building
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.frame_codec import decode
from pipeline.guarded_reading import guarded_map

# Part of each film's name: raise it when films come to look different.
FILM_VERSION = 2
LARGEST_HEIGHT = 540  # pixels; taller images are made smaller
DESCRIPTION = "film.json"
# Frames without forward references keep their order, and a key frame every so often makes any frame quick to
# reach, which stepping backwards needs. Cameras are encoded side by side, one thread each.
ENCODING = {"crf": "23", "preset": "ultrafast", "g": "10", "bf": "0", "threads": "1"}
BASE_LIMIT_S = 30.0  # of computing, for a film of no length
LIMIT_S_PER_FRAME = 0.2


@dataclass(frozen=True)
class CameraFilm:
    """One camera's video: its file below the film's folder, and its picture's size in pixels."""

    camera: str
    file: str
    width: int
    height: int


@dataclass(frozen=True)
class Film:
    """A film on disk: ``length`` frames at ``rate_hz`` for each camera, and who drove when."""

    folder: Path
    rate_hz: float
    length: int
    cameras: tuple[CameraFilm, ...]
    spans: tuple[FrameSpan, ...]


def film_folder(entry: EpisodeEntry, films: Path) -> Path:
    """Where the film of an episode lies; the name changes when the recording, or how films look, does."""
    return films / f"{entry.id}-{entry.fingerprint[:12]}-v{FILM_VERSION}"


def find_film(entry: EpisodeEntry, films: Path) -> Film | None:
    """The episode's film if it has been made."""
    folder = film_folder(entry, films)
    try:
        fields = json.loads((folder / DESCRIPTION).read_text())
        return Film(
            folder=folder,
            rate_hz=fields["rate_hz"],
            length=fields["length"],
            cameras=tuple(CameraFilm(**camera) for camera in fields["cameras"]),
            spans=tuple(FrameSpan(**span) for span in fields["spans"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def make_film(entry: EpisodeEntry, films: Path) -> Film:
    """The film of a finished episode, made now unless it is there already.

    Raises ``InputError`` when the episode cannot be read or holds no picture, and when the disk is full.
    """
    found = find_film(entry, films)
    if found is not None:
        return found
    limit_s = BASE_LIMIT_S + LIMIT_S_PER_FRAME * entry.length
    request = (entry.path, film_folder(entry, films))
    for _, result in guarded_map(encode_film, [request], timeout_s=limit_s):
        if isinstance(result, InputError):
            raise result
    found = find_film(entry, films)
    if found is None:
        raise InputError(f"the film of {entry.path} was not written to {films}: is the disk full?")
    return found


def encode_film(request: tuple[Path, Path]) -> None:
    """Writes the film of an episode file into a folder that does not exist yet; runs in a guarded child."""
    path, folder = request
    av.logging.set_level(None)  # or every video prints a page of encoder statistics
    with EpisodeReader(path) as reader:
        if len(reader) == 0 or not reader.info.cameras:
            raise InputError(f"{path} has no picture to show: it holds {len(reader)} frames")
        with building(folder, replace=True) as aside:
            # A camera's name is text of people: it is no path.
            files = [(path, camera, aside / f"{i}.mp4") for i, camera in enumerate(reader.info.cameras)]
            with ThreadPoolExecutor(len(files)) as threads:
                cameras = [asdict(camera) for camera in threads.map(_encode_camera, files)]
            document = {
                "rate_hz": reader.info.rate_hz,
                "length": len(reader),
                "cameras": cameras,
                "spans": [asdict(span) for span in frame_spans(reader.sources.tolist())],
            }
            (aside / DESCRIPTION).write_text(json.dumps(document))


def shown_size(height: int, width: int) -> tuple[int, int]:
    """The (width, height) in a film of images of this size: not too tall, and even, as H.264 needs."""
    scale = min(1.0, LARGEST_HEIGHT / height)
    return 2 * max(1, round(width * scale / 2)), 2 * max(1, round(height * scale / 2))


def shown_size_of(size: tuple[int, int]) -> tuple[int, int]:
    """:func:`shown_size` of (height, width); asked of a child, it leaves one that is ready for films."""
    return shown_size(*size)


def _encode_camera(request: tuple[Path, str, Path]) -> CameraFilm:
    """Writes the video of one camera of an episode file."""
    path, camera, file = request
    with EpisodeReader(path) as reader:
        width, height = _encode(_images(reader, camera), reader.info.rate_hz, file)
    return CameraFilm(camera, file.name, width, height)


def _images(reader: EpisodeReader, camera: str) -> Iterator[np.ndarray]:
    """A camera's images, one after the other: episodes can be long."""
    for i, jpeg in enumerate(reader.stream_jpegs(camera)):
        image = decode(jpeg)
        if image is None:
            raise InputError(f"{reader.path}: frame {i} of camera {camera!r} is damaged")
        yield image


def _encode(images: Iterable[np.ndarray], rate_hz: float, path: Path) -> tuple[int, int]:
    """Writes images (each (H, W, 3) uint8 RGB) as an MP4; returns its picture's (width, height)."""
    size = None
    rate = Fraction(rate_hz).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=ENCODING)
        stream.pix_fmt = "yuv420p"
        for number, image in enumerate(images):
            if size is None:
                size = shown_size(*image.shape[:2])
                stream.width, stream.height = size
            if image.shape[1::-1] != size:
                image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # noqa: PLW2901  # still it
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert size is not None  # an episode has frames here
    return size
