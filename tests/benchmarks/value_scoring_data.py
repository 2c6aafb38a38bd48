"""The data of :mod:`tests.benchmarks.value_scoring`: workspaces of as many episodes as wanted, and models.

A few episodes are recorded, cached and exported by the project's own writers; the others are copies of them
with files of their own, episode file and cached frames alike, so that nothing is read from the disk's cache
twice. Models have random weights: they take as long as trained ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from pipeline.cache_layout import content_folder, file_state, pointer_path, read_pointer, write_pointer
from pipeline.episode import CAMERAS, STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeWriter
from pipeline.frame_cache import FrameCache
from pipeline.lerobot_dataset import export_dataset
from pipeline.workspace import EpisodeEntry, Workspace
from tests.benchmarks.large_dataset import multiply
from value_model.checkpoint import ModelRecord, save_checkpoint
from value_model.network import NetworkConfig, build_network
from value_model.training_config import ValueTrainingConfig
from workflows.value_ensemble import ValueEnsemble

IMAGE_SIZE = 84
RATE_HZ = 10.0
TASKS = ("pick up the red cube", "pick up the blue cube")
FOLDS, MEMBERS = 2, 2


class ScoringData:
    """A workspace below ``root`` whose episodes come from a few recorded ones."""

    def __init__(self, root: Path, distinct: int, length: int) -> None:
        """Records ``distinct`` episodes of about ``length`` frames and caches them."""
        self.workspace = Workspace(root).create()
        self.cache = FrameCache(self.workspace.cache, IMAGE_SIZE)
        self.recorded = [self._record(number, length) for number in range(distinct)]
        self._short = self._record(distinct, 5)
        self.cache.build_many([entry.path for entry in [*self.recorded, self._short]])
        self._forgotten = 0
        self.lengths = {entry.id: entry.length for entry in [*self.recorded, self._short]}

    def add(self, episodes: int, short: bool = False) -> list[str]:
        """Adds copies of the recorded episodes in turn, or of one that is very short; their ids."""
        recorded = [self._short] if short else self.recorded
        ids = []
        for number in range(episodes):
            source = recorded[number % len(recorded)]
            episode_id = f"episode-{len(self.lengths):05d}"
            self._copy(source, episode_id)
            self.lengths[episode_id] = source.length
            ids.append(episode_id)
        return ids

    def frames(self, episode_ids: list[str]) -> int:
        """How many frames these episodes have."""
        return sum(self.lengths[episode_id] for episode_id in episode_ids)

    def ensemble(self, network: NetworkConfig, seen_of: list[str], **training: object) -> ValueEnsemble:
        """Models of random weights, of which each has seen every other episode of ``seen_of``."""
        config = replace(
            ValueTrainingConfig(network=network, folds=FOLDS, members=MEMBERS),
            **training,  # type: ignore[arg-type]  # checked when it is built
        )
        folders = []
        for fold in range(FOLDS):
            for member in range(MEMBERS):
                torch.manual_seed(10 * fold + member)
                seen = tuple(i for n, i in enumerate(seen_of) if n % FOLDS != fold)
                folder = self.workspace.root / "models" / f"{network.kind}-{fold}-{member}"
                built = build_network(network)
                record = ModelRecord(fold, member, seen, built.config, config.to_parameters(), 1, 1.0, None)
                save_checkpoint(folder, built, record)
                folders.append(folder)
        config = replace(config, network=built.config)
        return ValueEnsemble(tuple(folders), config.to_parameters(), IMAGE_SIZE, "")

    def lerobot_dataset(self, episodes: int) -> Path:
        """A LeRobotDataset of ``episodes`` episodes like the recorded ones, videos and all."""
        folder = self.workspace.datasets
        small = export_dataset(self.recorded, folder / "small")
        return multiply(small, folder / "benchmark", episodes)

    def forget_scores(self) -> None:
        """Puts all scores away.

        They are not removed: for some seconds ext4 gives out no inode that has just been freed, and passes
        over each of them whenever a file is made. Nobody scores what was removed a second ago.
        """
        scores = self.cache.root / "scores"
        if scores.exists():
            self._forgotten += 1
            scores.rename(self.workspace.root / f"forgotten-{self._forgotten}")

    def _copy(self, source: EpisodeEntry, episode_id: str) -> None:
        pointer = read_pointer(pointer_path(self.cache.root, IMAGE_SIZE, source.id))
        assert pointer is not None
        path = source.path.with_name(f"{episode_id}.h5")
        shutil.copyfile(source.path, path)
        content = f"{pointer.content[:24]}{episode_id[-8:]}"
        shutil.copytree(self.cache.folder(source.id), content_folder(self.cache.root, IMAGE_SIZE, content))
        place = pointer_path(self.cache.root, IMAGE_SIZE, episode_id)
        info = replace(pointer.info, id=episode_id)
        write_pointer(place, replace(pointer, content=content, info=info, source=file_state(path)))

    def _record(self, number: int, length: int) -> EpisodeEntry:
        rng = np.random.default_rng(number)
        info = EpisodeInfo(
            id=f"recorded-{number:03d}",
            task=TASKS[number % len(TASKS)],
            operator="benchmark",
            robot="simulated_gen3",
            rate_hz=RATE_HZ,
            cameras=CAMERAS,
            created=f"2025-01-01T00:00:{number:02d}+00:00",
            software_version="benchmark",
        )
        path = self.workspace.episode_path(info.task, info.id)
        with EpisodeWriter(path, info, queue_size=64) as writer:
            for frame in _frames(int(length * rng.uniform(0.8, 1.2)), rng):
                writer.append(frame)
        return self.workspace.find(info.id)


def _frames(length: int, rng: np.random.Generator) -> Iterator[Frame]:
    """A cube on its way over a textured table, seen by two cameras."""
    coarse = rng.normal(128, 40, (12, 12, 3)).astype(np.float32)
    table = np.clip(cv2.resize(coarse, (IMAGE_SIZE, IMAGE_SIZE)), 0, 255).astype(np.uint8)
    for i in range(length):
        left = 5 + (IMAGE_SIZE - 20) * i // length
        images = {}
        for row, camera in enumerate(CAMERAS):
            images[camera] = table.copy()
            images[camera][30 + 10 * row : 42 + 10 * row, left : left + 12] = (200, 30, 30)
        time_ns = 10**18 + int(i * 1e9 / RATE_HZ)
        yield Frame(
            state={f.name: rng.normal(size=f.shape).astype(np.float32) for f in STATE_FIELDS},
            images=images,
            action=rng.normal(size=7).astype(np.float32),
            source=Source.TELEOP,
            timestamp_ns=time_ns,
            camera_timestamp_ns=dict.fromkeys(CAMERAS, time_ns),
        )


@dataclass(frozen=True)
class Size:
    """How much a benchmark does. ``small`` episodes are the 1×, ten times as many the 10×."""

    distinct: int
    length: int
    small: int
    repeats: int
    lerobot_frames: int
    naive_workers: tuple[int, ...] = (4, 2, 0)

    def __str__(self) -> str:
        """For the log."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())
