"""Makes small real episodes for the tests of the pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import CAMERAS, STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeWriter

TASK = "pick up the red cube"
STEP_NS = 100_000_000


def make_info(episode_id: str = "e0001", **changes: Any) -> EpisodeInfo:
    """Attributes of a 10 Hz teleoperated episode."""
    values: dict[str, Any] = {
        "id": episode_id,
        "task": TASK,
        "operator": "ana",
        "robot": "simulated_gen3",
        "rate_hz": 10.0,
        "cameras": CAMERAS,
        "created": "2025-01-01T10:00:00.000Z",
        "software_version": "0.1.0",
    }
    return EpisodeInfo(**{**values, **changes})


def make_image(rng: np.random.Generator, size: int = 24) -> np.ndarray:
    """A smooth random picture, as a camera gives, size×size×3 uint8."""
    corners = rng.integers(40, 255, (2, 2, 3))
    across = np.linspace(0, 1, size)[:, None]
    left = corners[0, 0] * (1 - across) + corners[1, 0] * across
    right = corners[0, 1] * (1 - across) + corners[1, 1] * across
    return (left[:, None] * (1 - across[None]) + right[:, None] * across[None]).astype(np.uint8)


def make_frame(
    i: int, rng: np.random.Generator, source: Source = Source.TELEOP, cameras: Iterable[str] = CAMERAS
) -> Frame:
    """Frame ``i``: random numbers and pictures, on time."""
    time_ns = 1_000_000_000_000 + i * STEP_NS
    return Frame(
        state={f.name: rng.normal(size=f.shape).astype(np.float32) for f in STATE_FIELDS},
        images={camera: make_image(rng) for camera in cameras},
        action=rng.normal(size=7).astype(np.float32),
        source=source,
        timestamp_ns=time_ns,
        camera_timestamp_ns=dict.fromkeys(cameras, time_ns - 5_000_000),
        policy_action=None if source == Source.TELEOP else rng.normal(size=7).astype(np.float32),
    )


def make_frames(length: int, seed: int = 0) -> list[Frame]:
    """``length`` teleoperated frames, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [make_frame(i, rng) for i in range(length)]


def write_episode(path: Path, frames: Iterable[Frame], info: EpisodeInfo) -> Path:
    """Records and closes an episode."""
    with EpisodeWriter(path, info) as writer:
        for frame in frames:
            writer.append(frame)
    return path
