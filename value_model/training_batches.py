"""The batches of a training: which frames, how they are changed, and a little ahead of time on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.frame_table import FrameTable
from value_model.augmentation import draw_shifts, shift_images
from value_model.training_config import ValueTrainingConfig
from value_model.training_group import Group

# Batches made ready while a GPU works; a CPU has nobody to do it meanwhile.
_AHEAD = 3


@dataclass(frozen=True)
class Batch:
    """B frames as the network gets them: ``frames`` (B,) int64 rows of the table, ``images``
    (B, cameras, S, S, 3) uint8, ``state`` (B, state_size) float32.
    """

    frames: np.ndarray
    images: Tensor
    state: Tensor


class TrainingBatches:
    """Draws batches for ever from one generator, so that a seed decides them all.

    Every process of a group draws the whole batch's random numbers and makes its share of the frames.
    """

    def __init__(
        self,
        table: FrameTable,
        frames: np.ndarray,
        config: ValueTrainingConfig,
        state_scale: Tensor,
        rng: np.random.Generator,
        group: Group,
    ) -> None:
        """``frames``: rows of ``table`` to draw from; ``state_scale``: what state noise is scaled by."""
        self._table, self._frames, self._config = table, frames, config
        self._scale, self._rng, self._share = state_scale.cpu(), rng, group.share(config.batch_size)
        self._on_gpu = torch.device(config.device).type == "cuda"
        self._waiting: deque[tuple[Mapping[str, Any], Future[Batch]]] = deque()
        self._reader = ThreadPoolExecutor(1, "batches") if self._on_gpu else None

    def draw(self) -> Batch:
        """The next batch (this process's share of it)."""
        if self._reader is None:
            return self._make(*self._random())
        while len(self._waiting) <= _AHEAD:
            before = self._rng.bit_generator.state
            self._waiting.append((before, self._reader.submit(self._make, *self._random())))
        return self._waiting.popleft()[1].result()

    def close(self) -> None:
        """Ends the thread that reads ahead."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)

    @property
    def rng_state(self) -> dict[str, Any]:
        """The generator's state before the batch that :meth:`draw` gives next; plain JSON."""
        return dict(self._waiting[0][0] if self._waiting else self._rng.bit_generator.state)

    @rng_state.setter
    def rng_state(self, state: Mapping[str, Any]) -> None:
        self._waiting.clear()
        self._rng.bit_generator.state = state

    def _random(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Frames, shifts and noise of the next batch, this process's share of each."""
        config, share = self._config, self._share
        frames = self._rng.choice(self._frames, config.batch_size)
        shifts = noise = None
        if config.shift:
            cameras = self._table.image_shape[0]
            shifts = draw_shifts(len(frames), cameras, config.shift, self._rng)[share]
        if config.state_noise and config.network.state_size:
            shape = (len(frames), self._table.state.shape[1])
            noise = self._rng.standard_normal(shape, dtype=np.float32)[share]
        return frames[share], shifts, noise

    def _make(self, frames: np.ndarray, shifts: np.ndarray | None, noise: np.ndarray | None) -> Batch:
        images = self._table.images(frames)
        state = torch.as_tensor(self._table.state[frames])
        if shifts is not None:
            images = shift_images(images, shifts)
        if noise is not None:
            state = state + self._config.state_noise * torch.as_tensor(noise) * self._scale
        ready = torch.as_tensor(images)
        return Batch(frames, ready.pin_memory() if self._on_gpu else ready, state)
