"""A small table of frames in memory, and tiny checkpoints of several policy types trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, POSITIVE
from workflows.policy_training import PolicyTrainingConfig, TrainingResult, train_policy

RED, BLUE = "pick up the red cube", "pick up the blue cube"


def random_table(lengths: Sequence[int] = (12, 9), size: int = 32, seed: int = 0) -> FrameTable:
    """Episodes of random numbers and pictures of these lengths, of both tasks in turn."""
    rng = np.random.default_rng(seed)
    counts = np.array(lengths, dtype=np.int64)
    frames = int(counts.sum())
    return FrameTable(
        episode_ids=[f"e{i}" for i in range(len(counts))],
        tasks=[(RED, BLUE)[i % 2] for i in range(len(counts))],
        cameras=("table", "wrist"),
        starts=np.cumsum(counts) - counts,
        lengths=counts,
        episode_index=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        frame_index=np.concatenate([np.arange(n, dtype=np.int32) for n in counts]),
        source=np.zeros(frames, dtype=np.uint8),
        state=rng.normal(size=(frames, 15)).astype(np.float32),
        action=rng.normal(size=(frames, 7)).astype(np.float32),
        _episode_images=[rng.integers(0, 256, (n, 2, size, size, 3), dtype=np.uint8) for n in counts],
    )


def train_tiny(
    out: Path, policy_type: str, options: dict[str, Any], table: FrameTable | None = None, **training: Any
) -> TrainingResult:
    """Trains a few steps on alternating indicators and writes the checkpoint into ``out``."""
    table = table or random_table()
    indicators = np.resize(np.array([POSITIVE, NEGATIVE], dtype=np.int8), len(table))
    settings = {"steps": 3, "batch_size": 4, "warmup_steps": 1, "ema_decay": 0.0, **training}
    config = PolicyTrainingConfig(policy_type=policy_type, policy_options=options, **settings)
    return train_policy(table, indicators, config, None, out)
