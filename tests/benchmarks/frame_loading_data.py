"""The data of :mod:`tests.benchmarks.frame_loading`: the same episodes in our cache and for LeRobot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from pipeline.cache_layout import content_folder, pointer_path, read_pointer, write_pointer
from pipeline.episode import CAMERAS, STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeWriter, read_entry
from pipeline.frame_cache import FrameCache
from pipeline.lerobot_dataset import export_dataset
from tests.benchmarks.large_dataset import multiply

IMAGE_SIZE = 224
RATE_HZ = 10


@dataclass(frozen=True)
class Size:
    """``episodes`` of ``length`` frames each, of which ``distinct`` differ."""

    episodes: int
    distinct: int
    length: int

    @property
    def cache_bytes(self) -> int:
        """What all images take decoded."""
        return self.episodes * self.length * len(CAMERAS) * IMAGE_SIZE**2 * 3


@dataclass(frozen=True)
class LoadingData:
    """``cache`` is a frame cache's root with ``episode_ids``; ``dataset`` a LeRobotDataset of as many."""

    cache: Path
    episode_ids: list[str]
    dataset: Path
    image_size: int = IMAGE_SIZE
    rate_hz: int = RATE_HZ


def make_data(folder: Path, size: Size) -> LoadingData:
    """Records the distinct episodes, caches and exports them, and copies them to the wanted number."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        paths = list(pool.map(partial(_record, folder, size.length), range(size.distinct)))
    cache = FrameCache(folder / "cache", IMAGE_SIZE)
    cache.build_many(paths, workers=cores)
    ids = [f"episode-{number:04d}" for number in range(size.episodes)]
    for number, episode_id in enumerate(ids):
        if number >= size.distinct:
            _copy_entry(cache, ids[number % size.distinct], episode_id)
    small = export_dataset([read_entry(path) for path in paths], folder / "small", workers=cores)
    dataset = multiply(small, folder / "dataset", size.episodes)
    os.sync()  # or the disk would be busy while we measure
    return LoadingData(cache.root, ids, dataset)


def _record(folder: Path, length: int, number: int) -> Path:
    """An episode of textured pictures in which everything moves: neither JPEG nor H.264 has it easy."""
    path = folder / f"episode-{number:04d}.h5"
    info = EpisodeInfo(
        id=path.stem,
        task="pick up the red cube",
        operator="benchmark",
        robot="simulated_gen3",
        rate_hz=RATE_HZ,
        cameras=CAMERAS,
        created="2025-01-01T10:00:00.000Z",
        software_version="0",
    )
    with EpisodeWriter(path, info) as writer:
        for frame in _frames(length, np.random.default_rng(number)):
            writer.append(frame)
    return path


def _frames(length: int, rng: np.random.Generator) -> Iterator[Frame]:
    world = _textured(rng, 2 * IMAGE_SIZE)
    cube = _textured(rng, IMAGE_SIZE // 5)
    path = np.cumsum(rng.normal(0, 2.5, (length, len(CAMERAS), 2, 2)), axis=0) + IMAGE_SIZE / 2
    for i in range(length):
        images = {}
        for column, camera in enumerate(CAMERAS):
            (top, left), (y, x) = np.clip(path[i, column], 0, IMAGE_SIZE - len(cube) - 1).astype(int)
            image = world[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE].copy()
            image[y : y + len(cube), x : x + len(cube)] = cube
            images[camera] = image
        time_ns = 1_000_000_000_000 + i * 10**9 // RATE_HZ
        yield Frame(
            state={f.name: rng.normal(size=f.shape).astype(np.float32) for f in STATE_FIELDS},
            images=images,
            action=rng.normal(size=7).astype(np.float32),
            source=Source.TELEOP,
            timestamp_ns=time_ns,
            camera_timestamp_ns=dict.fromkeys(CAMERAS, time_ns),
        )


def _textured(rng: np.random.Generator, size: int) -> np.ndarray:
    """Smooth noise at several scales, as surfaces have it: size × size × 3 uint8."""
    total = np.zeros((size, size, 3))
    for cells, weight in ((4, 60.0), (16, 35.0), (64, 20.0), (size, 6.0)):
        coarse = rng.normal(0, weight, (cells, cells, 3))
        total += np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR), np.float64)
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def _copy_entry(cache: FrameCache, source: str, episode_id: str) -> None:
    """A file of its own for an episode of equal frames: by itself the cache would store them once."""
    pointer = read_pointer(pointer_path(cache.root, cache.image_size, source))
    assert pointer is not None
    content = f"{pointer.content[:24]}{episode_id[-8:]}"
    shutil.copytree(cache.folder(source), content_folder(cache.root, cache.image_size, content))
    info = replace(pointer.info, id=episode_id)
    place = pointer_path(cache.root, cache.image_size, episode_id)
    write_pointer(place, replace(pointer, content=content, info=info))
