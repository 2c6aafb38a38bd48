"""Small frame tables for these tests: episodes whose pixels tell, or do not tell, how they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.episode import Source
from pipeline.frame_table import FrameTable
from value_model.network import SmallNetworkConfig
from value_model.training import ValueTrainingConfig

SIZE = 24
RED, BLUE = "pick up the red cube", "pick up the blue cube"

SMALL = ValueTrainingConfig(
    network=SmallNetworkConfig(
        cameras=1,
        image_size=SIZE,
        state_size=0,
        patch=4,
        channels=(16, 16, 16),
        width=48,
        image_dropout=0.0,
        dropout=0.1,
    ),
    weight_decay=0.05,
    steps=120,
    batch_size=48,
    members=1,
    learning_rate=3e-3,
    average=0.9,
    shift=1,
    evaluate_every=40,
)


def make_table(
    lengths: Sequence[int],
    tasks: Sequence[str] | None = None,
    sources: Sequence[np.ndarray] | None = None,
    images: Sequence[np.ndarray] | None = None,
    rates: Sequence[float] | None = None,
    contents: Sequence[str] = (),
) -> FrameTable:
    """A table of episodes ``e000``, ``e001``, … held in memory.

    By default images are black, all frames teleop, all rates 10 Hz, and no episode is a copy of another.
    """
    count = np.asarray(lengths, dtype=np.int64)
    frames = int(count.sum())
    return FrameTable(
        episode_ids=[f"e{i:03d}" for i in range(len(count))],
        tasks=list(tasks) if tasks is not None else [RED] * len(count),
        cameras=("table", "wrist", "other")[: images[0].shape[1]] if images is not None else ("table",),
        starts=np.cumsum(count) - count,
        lengths=count,
        episode_index=np.repeat(np.arange(len(count), dtype=np.int32), count),
        frame_index=np.concatenate([np.arange(n, dtype=np.int32) for n in count]),
        source=np.concatenate(sources) if sources is not None else np.full(frames, Source.TELEOP, np.uint8),
        state=np.zeros((frames, 15), np.float32),
        action=np.zeros((frames, 7), np.float32),
        _episode_images=list(images)
        if images is not None
        else [np.zeros((n, 1, SIZE, SIZE, 3), np.uint8) for n in count],
        rates=np.full(len(count), 10.0) if rates is None else np.asarray(rates, dtype=np.float64),
        contents=list(contents),
    )


def picture_episode(length: int, going_well: bool, rng: np.random.Generator) -> np.ndarray:
    """Images ``(length, 1, SIZE, SIZE, 3)``: a bar that grows with progress, green or red by outcome.

    The background is blocks of colours of the episode's own, the same in all its frames: enough to
    recognise the episode by, and of no use for any other.
    """
    coarse = rng.integers(0, 120, size=(SIZE // 6, SIZE // 6, 3), dtype=np.uint8)
    background = np.kron(coarse, np.ones((6, 6, 1), np.uint8))
    images = np.repeat(background[None, None], length, axis=0)
    for t in range(length):
        bar = 2 + round((SIZE - 4) * t / (length - 1))
        images[t, 0, 4:9, :bar] = 255
        images[t, 0, 13:20, 6:18] = (0, 220, 0) if going_well else (220, 0, 0)
    return images


def picture_table(
    episodes: int, rng: np.random.Generator, *, honest: bool, tasks: Sequence[str] = (RED,)
) -> tuple[FrameTable, dict[str, str | None]]:
    """Episodes with pictures and their outcomes, half of them failures; lengths say nothing of outcomes.

    ``honest``: the picture's colour is the outcome; otherwise it is always green and the outcome drawn.
    """
    won = rng.permutation(np.arange(episodes) % 2 == 0)
    lengths = rng.integers(12, 24, size=episodes).tolist()
    images = [picture_episode(n, bool(w) if honest else True, rng) for n, w in zip(lengths, won, strict=True)]
    table = make_table(lengths, [tasks[i % len(tasks)] for i in range(episodes)], images=images)
    outcomes = {i: "success" if w else "failure" for i, w in zip(table.episode_ids, won, strict=True)}
    return table, dict(outcomes)


def memorising(config: ValueTrainingConfig, steps: int) -> ValueTrainingConfig:
    """``config`` with nothing that keeps a model from learning its episodes by heart."""
    network = replace(config.network, dropout=0.0)
    return replace(config, network=network, validation_share=0.0, shift=0, weight_decay=0.0, steps=steps)
