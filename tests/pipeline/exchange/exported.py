"""Small real episodes for the tests of exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import Source
from pipeline.episode_file import EpisodeEntry, EpisodeReader, EpisodeWriter, read_entry
from tests.pipeline.episodes import make_frame, make_info

SOURCES = (Source.POLICY, Source.INTERVENTION, Source.TELEOP)


def record(
    folder: Path,
    episode_id: str,
    length: int,
    *,
    seed: int = 0,
    foreign: dict[str, np.ndarray] | None = None,
    **info: Any,
) -> EpisodeEntry:
    """An episode of all sources with random unit quaternions and a gripper that keeps to its range."""
    rng = np.random.default_rng([seed, length])
    description = make_info(episode_id, **info)
    path = folder / f"{episode_id}.h5"
    with EpisodeWriter(path, description, foreign=foreign) as writer:
        for i in range(length):
            frame = make_frame(i, rng, SOURCES[i % 3], description.cameras)
            quaternion = rng.normal(size=4)
            frame.state["tool_pose"][3:] = quaternion / np.linalg.norm(quaternion)
            frame.action[6] = rng.random()
            for name in description.missing:
                if name == "action":
                    frame = replace(frame, action=np.full(7, np.nan, np.float32))
                else:
                    frame.state[name][:] = np.nan
            writer.append(frame)
    return read_entry(path)


def images_of(entry: EpisodeEntry, camera: str) -> np.ndarray:
    with EpisodeReader(entry.path) as reader:
        return reader.images(camera)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ids_of(entries: Sequence[EpisodeEntry]) -> list[str]:
    return [entry.id for entry in entries]
