"""The data of :mod:`tests.benchmarks.policy_training`: the same episodes in our cache and for LeRobot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.conditioned_view import make_view
from pipeline.episode import Source
from pipeline.frame_cache import FrameCache
from pipeline.frame_table import FrameTable
from pipeline.lerobot_dataset import export_dataset
from pipeline.prompts import NEGATIVE, POSITIVE
from pipeline.workspace import EpisodeEntry, Workspace
from tests.benchmarks.camera_episodes import HEIGHT, WIDTH, CameraEpisodes
from tests.tiny_episodes import EpisodeMaker
from workflows.local_ray import available_cpus

# What both train on, whatever was recorded: what ``recap policy train`` and the simulator take.
IMAGE_SIZE = 84
CAMERA, SMALL = f"{WIDTH}x{HEIGHT}", f"{IMAGE_SIZE}x{IMAGE_SIZE}"


@dataclass(frozen=True)
class Data:
    """The same frames twice: in our cache, and as a conditioned LeRobotDataset at the recorded size."""

    table: FrameTable
    indicators: np.ndarray
    view: Path


def make_data(folder: Path, recorded: str, episodes: int, length: int) -> Data:
    """Records ``episodes`` of ``length`` frames, decodes them into the cache, makes a conditioned view.

    ``recorded`` is :data:`CAMERA`, pictures as a camera gives them, or :data:`SMALL`, as a simulator does.
    """
    cores = available_cpus()
    entries = (
        _from_camera(folder, episodes, length) if recorded == CAMERA else _small(folder, episodes, length)
    )
    cache = FrameCache(folder / "cache", IMAGE_SIZE)
    cache.build_many([entry.path for entry in entries], workers=cores)
    table = FrameTable.load(cache, [entry.id for entry in entries])
    codes = np.resize(np.array([POSITIVE, NEGATIVE], dtype=np.int8), length)
    outcomes = {entry.id: ("success", "failure")[i % 2] for i, entry in enumerate(entries)}
    base = export_dataset(entries, folder / "base", outcomes=outcomes, workers=cores)
    indicators = {entry.id: codes for entry in entries}
    view = make_view(base, indicators, folder / "view", indicator_dropout=0.3, seed=0)
    return Data(table, np.tile(codes, episodes), view)


def _from_camera(folder: Path, episodes: int, length: int) -> list[EpisodeEntry]:
    camera = CameraEpisodes(folder / "recorded")
    return [camera.write(f"episode-{number:03d}", length, number) for number in range(episodes)]


def _small(folder: Path, episodes: int, length: int) -> list[EpisodeEntry]:
    make = EpisodeMaker(Workspace(folder / "recorded").create())
    sources = [Source.TELEOP] * length
    return [make(sources=sources, size=(IMAGE_SIZE, IMAGE_SIZE)) for _ in range(episodes)]
