"""Tiny real episodes for tests: written by the same writer as any recording, a second or two long.

The pictures show a square that moves over a table, so that films and caches have something to show, and every
number of a frame differs from every other frame's, so that a mix-up is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.episode import CAMERAS, STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeWriter
from pipeline.workspace import EpisodeEntry, Workspace

TASK = "pick up the red cube"
START_NS = 1_700_000_000_000_000_000


def picture(index: int, length: int, size: tuple[int, int], colour: tuple[int, int, int]) -> np.ndarray:
    """A coloured square on its way from left to right over a grey table: ``(height, width, 3)`` uint8 RGB."""
    height, width = size
    image = np.full((height, width, 3), 190, dtype=np.uint8)
    image[: height // 4] = (225, 232, 240)
    side = max(2, height // 6)
    left = round((width - side) * index / max(1, length - 1))
    top = height // 2
    image[top : top + side, left : left + side] = colour
    return image


def tiny_frame(
    index: int,
    length: int,
    source: Source,
    cameras: Sequence[str] = CAMERAS,
    size: tuple[int, int] = (48, 64),
) -> Frame:
    """Frame ``index`` of ``length`` at 10 Hz; the policy's wish is there unless a person teleoperates."""
    time_ns = START_NS + index * 100_000_000
    state = {
        field.name: np.full(field.shape, index + number / 10, dtype=np.float32)
        for number, field in enumerate(STATE_FIELDS)
    }
    colours = [(210, 40, 40), (40, 80, 210), (40, 160, 80)]
    return Frame(
        state=state,
        images={
            camera: picture(index, length, size, colours[number % 3]) for number, camera in enumerate(cameras)
        },
        action=np.full(7, index / 100, dtype=np.float32),
        source=source,
        timestamp_ns=time_ns,
        camera_timestamp_ns=dict.fromkeys(cameras, time_ns - 5_000_000),
        policy_action=None if source is Source.TELEOP else np.full(7, -index / 100, dtype=np.float32),
    )


class EpisodeMaker:
    """Makes episodes in one workspace, ``make(task=…, sources=…)``; ids count up from ``episode-000``."""

    def __init__(self, workspace: Workspace) -> None:
        """Makes nothing yet."""
        self.workspace = workspace
        self.made = 0

    def __call__(
        self,
        task: str = TASK,
        sources: Sequence[Source] = (Source.TELEOP,) * 12,
        *,
        cameras: Sequence[str] = CAMERAS,
        size: tuple[int, int] = (48, 64),
        **info: Any,
    ) -> EpisodeEntry:
        """Writes one episode with a frame per source; ``info`` replaces fields of its ``EpisodeInfo``."""
        number = self.made
        self.made += 1
        fields: dict[str, Any] = {
            "id": f"episode-{number:03d}",
            "task": task,
            "operator": "nadia",
            "robot": "simulated_gen3",
            "rate_hz": 10.0,
            "cameras": tuple(cameras),
            "created": f"2025-01-01T00:{number // 60:02d}:{number % 60:02d}+00:00",
            "software_version": "test",
        }
        if Source.POLICY in sources:
            fields["policy_checkpoint"] = "checkpoint-of-a-test"
        description = EpisodeInfo(**(fields | info))
        path = self.workspace.episode_path(task, description.id)
        with EpisodeWriter(path, description) as writer:
            for index, source in enumerate(sources):
                writer.append(tiny_frame(index, len(sources), source, cameras, size))
        return self.workspace.find(description.id)
