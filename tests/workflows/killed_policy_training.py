"""A training for the kill test: trains a policy, and at some step stands still until it is killed.

Arguments: the folder to write to, the resume file, the step at which to stand still.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, NONE, POSITIVE
from pipeline.resume_state import Keeper
from workflows.policy_training import PolicyTrainingConfig, train_policy

SIZE = 24
OPTIONS: dict[str, Any] = {
    "vision_channels": [8, 8, 8],
    "width": 32,
    "expert_hidden": 32,
    "expert_blocks": 1,
    "keypoints": 4,
    "map_channels": 2,
    "random_shift": 1,
}
# Augmentation, dropped indicators, two groups of frames, a mean of the weights: all that has a state.
CONFIG = PolicyTrainingConfig(
    steps=34, batch_size=8, warmup_steps=2, positive_share=0.6, indicator_dropout=0.4, policy_options=OPTIONS
)


def make_table(episodes: int = 4, length: int = 10) -> FrameTable:
    """Episodes in which the whole picture's brightness tells the speed along x."""
    rng = np.random.default_rng(0)
    count = episodes * length
    brightness = rng.random(count).astype(np.float32)
    images = np.empty((count, 2, SIZE, SIZE, 3), dtype=np.uint8)
    images[:] = (brightness * 255).astype(np.uint8)[:, None, None, None, None]
    action = rng.uniform(-0.1, 0.1, (count, 7)).astype(np.float32)
    action[:, 0] = brightness - 0.5
    starts = np.arange(episodes, dtype=np.int64) * length
    return FrameTable(
        episode_ids=[f"episode-{index}" for index in range(episodes)],
        tasks=["pick up the red cube", "pick up the blue cube"] * (episodes // 2),
        cameras=("table", "wrist"),
        starts=starts,
        lengths=np.full(episodes, length, dtype=np.int64),
        episode_index=np.repeat(np.arange(episodes, dtype=np.int32), length),
        frame_index=np.tile(np.arange(length, dtype=np.int32), episodes),
        source=np.zeros(count, dtype=np.uint8),
        state=np.tile(np.eye(15, dtype=np.float32)[11], (count, 1)),
        action=action,
        _episode_images=[images[start : start + length] for start in starts],
    )


TABLE = make_table()
INDICATORS = np.array([POSITIVE, NEGATIVE, NONE, POSITIVE] * (len(TABLE) // 4), dtype=np.int8)


class EveryStep(Keeper):
    """Keeps a state after each step; says so, and stands still after that of ``stop_at``."""

    def __init__(self, stop_at: int = -1) -> None:
        """Never stands still by itself."""
        super().__init__(0.0, math.inf)
        self.kept, self._stop_at = 0, stop_at

    def keep(self, write: Any) -> None:
        """As it should, and then perhaps never again."""
        super().keep(write)
        self.kept += 1
        if self.kept == self._stop_at:
            print("standing still", flush=True)
            time.sleep(600)


def main() -> None:
    """Says "standing still" when what is left to do is to be killed."""
    out, resume, stop_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    train_policy(TABLE, INDICATORS, replace(CONFIG), None, out, resume=resume, keeper=EveryStep(stop_at))


if __name__ == "__main__":
    main()
