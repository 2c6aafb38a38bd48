"""Decode once: every episode's frames at training resolution, as arrays that can be memory-mapped.

Layout under the cache's root, all of it Zarr v3 that plain ``zarr.open_group`` reads::

    frames-<size>/<episode id>/    images (T, cameras, size, size, 3) uint8, state (T, 15) float32,
                                   action (T, 7) float32, source (T,) uint8; attributes: the
                                   episode's own, and the fingerprint of the frames it was made from
    scores/<scoring run>/<episode id>/    one (T,) float32 array for each score

Each array is a single uncompressed chunk, so the chunk's file *is* the array and reading it is a
memory map. No two writers share a file, and each folder appears in one rename. Everything here can be
made again from the episodes: deleting the cache loses time only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.atomic_folder import building
from pipeline.episode import POLICY_STATE_FIELDS, EpisodeInfo, policy_state
from pipeline.episode_file import EpisodeReader
from pipeline.errors import InputError
from pipeline.frame_codec import decode

LAYOUT_VERSION = 1


@dataclass(frozen=True)
class CachedEpisode:
    """One episode's arrays, read-only; T frames, C cameras in the order of ``info.cameras``.

    ``images`` (T, C, S, S, 3) uint8 RGB, memory-mapped; ``state`` (T, 15) float32 as
    :data:`pipeline.episode.POLICY_STATE_NAMES`; ``action`` (T, 7) float32 as
    :data:`pipeline.episode.ACTION_NAMES`; ``source`` (T,) uint8 as :class:`pipeline.episode.Source`.
    """

    images: np.ndarray
    state: np.ndarray
    action: np.ndarray
    source: np.ndarray
    info: EpisodeInfo

    @property
    def task(self) -> str:
        """The task's text, without an indicator."""
        return self.info.task

    @property
    def length(self) -> int:
        """The number of frames."""
        return len(self.source)


class FrameCache:
    """The cache below ``root`` for images of ``image_size`` × ``image_size`` pixels.

    A picture that is not square is squeezed into the square whole, not cropped.
    """

    def __init__(self, root: Path, image_size: int = 84) -> None:
        """Touches nothing on disk. Raises ``InputError`` unless ``image_size`` is positive."""
        if image_size < 1:
            raise InputError(f"image size {image_size} is not positive")
        self.root = Path(root)
        self.image_size = image_size

    def folder(self, episode_id: str) -> Path:
        """Where an episode's arrays are, or would be."""
        return self.root / f"frames-{self.image_size}" / _safe(episode_id)

    def build(self, episode_path: Path) -> None:
        """Caches a finished episode file; returns at once when that has been done for this content.

        Safe to run from several processes at once and to kill at any moment. An entry made from other
        content under the same episode id is replaced. Raises ``InputError`` for an episode without
        frames, and whatever :class:`pipeline.episode_file.EpisodeReader` raises for a bad file.
        """
        with EpisodeReader(episode_path) as reader:
            folder = self.folder(reader.info.id)
            attributes = _episode_attributes(reader)
            if _attributes(folder) == attributes:
                return
            if len(reader) == 0:
                raise InputError(f"{episode_path} has no frames: exclude it, there is nothing to learn from")
            arrays = _read_arrays(reader, self.image_size)
        with building(folder, replace=True) as aside:
            _write_group(aside, arrays, attributes)

    def has(self, episode_id: str) -> bool:
        """Whether the episode is cached, at this image size and in this version of the layout."""
        return _attributes(self.folder(episode_id)).get("layout_version") == LAYOUT_VERSION

    def open(self, episode_id: str) -> CachedEpisode:
        """Maps an episode's arrays into memory. Raises ``InputError`` when it is not cached."""
        folder = self.folder(episode_id)
        attributes = _attributes(folder)
        if attributes.get("layout_version") != LAYOUT_VERSION:
            raise InputError(f"episode {episode_id} is not in the frame cache at {folder}: build it first")
        return CachedEpisode(
            images=_map_array(folder / "images"),
            state=_map_array(folder / "state"),
            action=_map_array(folder / "action"),
            source=_map_array(folder / "source"),
            info=_info_from_json(attributes["info"]),
        )

    def scores_folder(self, scoring_run: str, episode_id: str) -> Path:
        """Where an episode's scores of one scoring run are, or would be."""
        return self.root / "scores" / _safe(scoring_run) / _safe(episode_id)


def publish_scores(
    cache: FrameCache, scoring_run: str, episode_id: str, scores: Mapping[str, np.ndarray]
) -> None:
    """Stores named ``(T,)`` float32 arrays of one episode (value, advantage, …) for one scoring run.

    All names appear at once; publishing again replaces them all. Raises ``InputError`` when the arrays
    differ in length or hold a number that is not finite: a missing score must never pass for a zero.
    """
    arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in scores.items()}
    where = f"scores of episode {episode_id} in run {scoring_run}"
    if not arrays or any(a.ndim != 1 for a in arrays.values()) or len({len(a) for a in arrays.values()}) != 1:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise InputError(
            f"{where} have shapes {shapes}: give one array or more of shape (T,), all of one length"
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{where}: {name!r} holds numbers that are not finite: score every frame")
    with building(cache.scores_folder(scoring_run, episode_id), replace=True) as aside:
        _write_group(aside, arrays, {"scoring_run": scoring_run, "episode_id": episode_id})


def read_scores(cache: FrameCache, scoring_run: str, episode_id: str) -> dict[str, np.ndarray]:
    """All scores of one episode in one scoring run, name to read-only ``(T,)`` float32.

    Raises ``InputError`` when the run has not scored the episode.
    """
    folder = cache.scores_folder(scoring_run, episode_id)
    if not folder.is_dir():
        raise InputError(f"run {scoring_run} has no scores of episode {episode_id} in {folder.parent}")
    return {child.name: _map_array(child) for child in sorted(folder.iterdir()) if child.is_dir()}


def decoded_images(reader: EpisodeReader, camera: str) -> Iterator[np.ndarray]:
    """A camera's images one by one, uint8 (H, W, 3) RGB: a long recording need not fit in memory decoded.

    Raises ``InputError`` at the first damaged one.
    """
    for row, jpeg in enumerate(reader.jpegs(camera)):
        image = decode(jpeg)
        if image is None:
            raise InputError(f"{reader.path}: the image of camera {camera!r} in frame {row} is damaged")
        yield image


def _episode_attributes(reader: EpisodeReader) -> dict[str, Any]:
    """What an entry was made from, as JSON gives it back; an entry is current while this is equal."""
    info = json.loads(json.dumps(asdict(reader.info)))
    return {"layout_version": LAYOUT_VERSION, "fingerprint": reader.fingerprint, "info": info}


def _read_arrays(reader: EpisodeReader, size: int) -> dict[str, np.ndarray]:
    cameras = reader.info.cameras
    images = np.empty((len(reader), len(cameras), size, size, 3), dtype=np.uint8)
    for column, camera in enumerate(cameras):
        for row, image in enumerate(decoded_images(reader, camera)):
            images[row, column] = _resized(image, size)
    return {
        "images": images,
        "state": policy_state({name: reader.state(name) for name in POLICY_STATE_FIELDS}).astype(np.float32),
        "action": np.asarray(reader.actions, dtype=np.float32),
        "source": np.asarray(reader.sources, dtype=np.uint8),
    }


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[:2] == (size, size):
        return image
    # Area averaging is the one OpenCV mode that neither aliases nor blurs when it makes images smaller.
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _write_group(folder: Path, arrays: Mapping[str, np.ndarray], attributes: dict[str, Any]) -> None:
    # Slow to import, and reading does not need it.
    import zarr

    group = zarr.create_group(folder, zarr_format=3, attributes=attributes)
    for name, array in arrays.items():
        stored = group.create_array(
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=array.shape,
            compressors=None,
            filters=None,
            # An array of zeros alone (such as a source of TELEOP throughout) would get no chunk file.
            config={"write_empty_chunks": True},
        )
        stored[...] = array


def _attributes(folder: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((folder / "zarr.json").read_text())
    except FileNotFoundError:
        return {}
    attributes: dict[str, Any] = metadata["attributes"]
    return attributes


def _map_array(folder: Path) -> np.ndarray:
    metadata = json.loads((folder / "zarr.json").read_text())
    shape = tuple(metadata["shape"])
    chunk = folder.joinpath("c", *["0"] * len(shape))
    dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    # As a plain array: indexing through the memmap subclass costs more than copying a small frame.
    return np.memmap(chunk, dtype=dtype, mode="r", shape=shape).view(np.ndarray)


def _info_from_json(fields: dict[str, Any]) -> EpisodeInfo:
    return EpisodeInfo(**{**fields, "cameras": tuple(fields["cameras"])})


def _safe(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise InputError(f"{name!r} cannot be a file name: use letters, digits, '-', '_' and '.'")
    return name
