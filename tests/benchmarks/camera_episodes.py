"""Recorded episodes for benchmarks: pictures as large and as noisy as a camera's, written by the real writer.

A textured table, things that move over it, and a sensor's noise of two grey levels: what decides how
long JPEG and H.264 take and how many bytes they need.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline.episode import CAMERAS, STATE_FIELDS, EpisodeInfo, Frame, Source
from pipeline.episode_file import EpisodeWriter
from pipeline.workspace import EpisodeEntry, Workspace

HEIGHT, WIDTH = 480, 640
RATE_HZ = 10.0
_NOISE_LEVELS = 2.0
_NOISES = 8


class CameraEpisodes:
    """Writes episodes of two 480×640 cameras into a workspace."""

    def __init__(self, root: Path) -> None:
        """Makes the workspace and the pictures that all episodes are composed of."""
        self.workspace = Workspace(root).create()
        rng = np.random.default_rng(0)
        grain = rng.normal(0.0, 40.0, (HEIGHT, WIDTH, 3)).astype(np.float32)
        across, down = np.arange(WIDTH)[None, :, None] / 90.0, np.arange(HEIGHT)[:, None, None] / 70.0
        table = 125 + 50 * np.sin(across) + 30 * np.cos(down) + cv2.GaussianBlur(grain, (0, 0), 2.0)
        self._table = table.clip(8, 247).astype(np.uint8)
        self._noises = rng.normal(0.0, _NOISE_LEVELS, (_NOISES, HEIGHT, WIDTH, 3)).round().astype(np.int16)

    def write(self, episode_id: str, frames: int, seed: int) -> EpisodeEntry:
        """One episode, different for each seed; half of it rolled out, half corrected by hand."""
        rng = np.random.default_rng(seed)
        info = EpisodeInfo(
            id=episode_id,
            task=("pick up the red cube", "pick up the blue cube")[seed % 2],
            operator="benchmark",
            robot="kinova_gen3",
            rate_hz=RATE_HZ,
            cameras=CAMERAS,
            created=f"2025-01-01T00:00:{seed % 60:02d}+00:00",
            software_version="benchmark",
        )
        numbers = {f.name: rng.normal(size=(frames, *f.shape)).cumsum(axis=0) / 100 for f in STATE_FIELDS}
        path = self.workspace.episode_path(info.task, episode_id)
        with EpisodeWriter(path, info, queue_size=64) as writer:
            for i in range(frames):
                action = rng.normal(size=7).astype(np.float32)
                writer.append(
                    Frame(
                        state={name: values[i].astype(np.float32) for name, values in numbers.items()},
                        images={camera: self._picture(i, k, rng) for k, camera in enumerate(CAMERAS)},
                        action=action,
                        source=Source.POLICY if i < frames // 2 else Source.INTERVENTION,
                        timestamp_ns=10**18 + int(i * 1e9 / RATE_HZ),
                        camera_timestamp_ns=dict.fromkeys(
                            CAMERAS, 10**18 + int(i * 1e9 / RATE_HZ) - 5_000_000
                        ),
                        policy_action=action + 0.1,
                    )
                )
        return self.workspace.find(episode_id)

    def _picture(self, i: int, camera: int, rng: np.random.Generator) -> np.ndarray:
        image = self._table.copy()
        for thing in range(4):
            x = (60 + 150 * thing + (3 + thing) * i) % (WIDTH - 90)
            y = 60 + 90 * thing + int(30 * np.sin(i / 12.0 + thing + camera))
            image[y : y + 70, x : x + 80] = (200 - 40 * thing, 40 + 30 * thing, 60 * camera + 20 * thing)
        noise = self._noises[rng.integers(_NOISES)][:, :: rng.choice([-1, 1])]
        return np.clip(image + noise, 0, 255).astype(np.uint8)
