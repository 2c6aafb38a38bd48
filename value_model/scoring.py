"""Values for every frame, each from models that never saw the frame's episode.

An episode with an outcome is scored by the models of the fold that held it out; one without an
outcome, or recorded after training, by all of them. What counts is the list of seen episodes in each
model's own record, by id and by content, so that neither a mix-up of folds nor a copy of a recording under
another id can leak. Every frame gets a value, corrections by a
person included: they are the V(o_{t+N}) of the frames before them.

Episodes that the same models may score are dealt into *work items* of some hundred frames. Within an
item, batches of one size are filled across episodes (the last one is smaller), and all of the item's
models see a batch together, so that each image is read once. Which frames share a batch
depends on the list of episodes alone: whoever scores an item, and wherever, gets equal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from value_model.bins import ValueBins
from value_model.frame_feed import EpisodeFrames, FrameFeed, OpenFrames
from value_model.inputs import episode_tokens
from value_model.network import ValueNetwork
from value_model.scoring_models import FoldCheckpoint, ScoringModels
from value_model.scoring_pass import EpisodeScores, ScoringPass
from value_model.training_config import ValueTrainingConfig

__all__ = [
    "EpisodeScores",
    "FoldCheckpoint",
    "ScoringModels",
    "predict",
    "score",
    "score_episodes",
    "work_items",
]

# Frames in a batch. On a CPU, what a batch turns into must stay in its caches; a GPU wants more at once.
CPU_BATCH, GPU_BATCH, VLM_BATCH = 64, 512, 64
# A work item is closed as soon as it has so many frames.
ITEM_FRAMES = 1024

Progress = Callable[[int, int], None]


class FrameSource(Protocol):
    """Where the frames of episodes come from."""

    def episode(self, episode_id: str) -> EpisodeFrames:
        """One episode's frames. Raises ``InputError`` where there is none."""


def batch_frames(config: ValueTrainingConfig) -> int:
    """How many frames the models see at a time."""
    if config.network.kind == "vlm":
        return VLM_BATCH
    return CPU_BATCH if torch.device(config.device).type == "cpu" else GPU_BATCH


class Scorable(Protocol):
    """What dealing out asks of an episode."""

    @property
    def episode_id(self) -> str:
        """The episode."""

    @property
    def content(self) -> str:
        """The content key of its frames."""

    @property
    def length(self) -> int:
        """How many frames it has."""


def work_items(episodes: Sequence[Scorable], models: ScoringModels) -> list[list[int]]:
    """Deals episodes into items of ``ITEM_FRAMES`` frames or a few more (the last ones fewer), by position.

    All of an item's episodes may be scored by the same models. Raises ``InputError`` for an episode that
    every model has seen.
    """
    by_models: dict[tuple[int, ...], list[int]] = {}
    for position, episode in enumerate(episodes):
        by_models.setdefault(models.allowed(episode.episode_id, episode.content), []).append(position)
    items: list[list[int]] = []
    for positions in by_models.values():
        item: list[int] = []
        total = 0
        for position in positions:
            item.append(position)
            total += episodes[position].length
            if total >= ITEM_FRAMES:
                items.append(item)
                item, total = [], 0
        if item:
            items.append(item)
    return items


def score_episodes(
    source: FrameSource,
    episode_ids: Sequence[str],
    models: ScoringModels | Sequence[FoldCheckpoint],
    config: ValueTrainingConfig,
    on_scored: Callable[[str, EpisodeScores], None],
    on_failed: Callable[[str, InputError], None] | None = None,
) -> None:
    """Scores every frame of these episodes; calls ``on_scored`` for each as soon as it is whole.

    An episode that cannot be read, whose frames have another shape than the models take, that every model
    has seen, or that gets a value that is not finite raises ``InputError``, or with ``on_failed`` is
    given to that, and the others go on.
    """
    if not isinstance(models, ScoringModels):
        models = ScoringModels(models, config)
    failed = _raise if on_failed is None else on_failed
    episodes: list[EpisodeFrames] = []
    for episode_id in episode_ids:
        try:
            episode = source.episode(episode_id)
            models.check(episode)
            models.allowed(episode_id, episode.content)
        except InputError as error:
            failed(episode_id, error)
        else:
            episodes.append(episode)
    if not episodes:
        return
    items = work_items(episodes, models)
    feed = FrameFeed(episodes, items, batch_frames(config), pinned=models.device.type == "cuda")
    with feed:
        ScoringPass(episodes, items, models, on_scored, failed).run(feed)


def score(
    table: FrameTable,
    checkpoints: Sequence[FoldCheckpoint],
    config: ValueTrainingConfig,
    progress: Progress | None = None,
) -> np.ndarray:
    """The value of every frame, float32 ``(N,)`` in [−1, 0]: the mean over the models allowed to score it.

    Raises ``InputError`` when a checkpoint is missing, is not the fold and member it is said to be,
    or when an episode was seen by every model.
    """
    values = np.full(len(table), np.nan, dtype=np.float32)
    position = {episode_id: i for i, episode_id in enumerate(table.episode_ids)}
    done = 0

    def keep(episode_id: str, scores: EpisodeScores) -> None:
        nonlocal done
        values[table.frames_of(position[episode_id])] = scores.value
        done += len(scores.value)
        if progress is not None:
            progress(done, len(table))

    score_episodes(_TableSource(table), table.episode_ids, checkpoints, config, keep)
    return values


@torch.inference_mode()
def predict(network: ValueNetwork, table: FrameTable, frames: np.ndarray, device: str = "cpu") -> np.ndarray:
    """One network's values of the given frames, float32 ``(len(frames),)``; it may have seen them."""
    bins = ValueBins(int(network.config.bins))
    tokens = episode_tokens(table, network)
    values = np.empty(len(frames), dtype=np.float32)
    for start in range(0, len(frames), CPU_BATCH):
        part = frames[start : start + CPU_BATCH]
        logits = network(
            torch.as_tensor(table.images(part)).to(device),
            torch.as_tensor(table.state[part]).to(device),
            tokens[table.episode_index[part]].to(device),
        )
        values[start : start + len(part)] = bins.expectation(logits).cpu().numpy()
    if not np.isfinite(values).all():
        raise InputError("the value model gives values that are not finite: look for NaN in the states")
    return values


def _raise(_episode_id: str, error: InputError) -> None:
    raise error


@dataclass(frozen=True)
class _TableSource:
    """A table's episodes as a source of frames."""

    table: FrameTable

    def episode(self, episode_id: str) -> EpisodeFrames:
        return _TableEpisode(self.table, self.table.episode_ids.index(episode_id))


@dataclass(frozen=True)
class _TableEpisode:
    """One of a table's episodes, read as if from a file."""

    table: FrameTable
    position: int

    @property
    def episode_id(self) -> str:
        return self.table.episode_ids[self.position]

    @property
    def content(self) -> str:
        return self.table.contents[self.position]

    @property
    def task(self) -> str:
        return self.table.tasks[self.position]

    @property
    def length(self) -> int:
        return int(self.table.lengths[self.position])

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        return self.table.image_shape

    @property
    def state_size(self) -> int:
        return int(self.table.state.shape[1])

    def opened(self) -> AbstractContextManager[OpenFrames]:
        return nullcontext(self)

    def read(self, start: int, images: np.ndarray, state: np.ndarray) -> None:
        first = int(self.table.starts[self.position]) + start
        rows = np.arange(first, first + len(images))
        self.table.images(rows, images)
        state[:] = self.table.state[rows]
