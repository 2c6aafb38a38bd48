"""One pass over batches of frames: copies, networks, and values put together by episode."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InputError
from value_model.frame_feed import Batch, EpisodeFrames, FrameFeed, Unreadable
from value_model.scoring_models import ScoringModels


@dataclass(frozen=True)
class EpisodeScores:
    """One episode's values, float32 ``(T,)`` in [−1, 0], and how far its models differ about each frame.

    ``spread`` float32 ``(T,)`` is the standard deviation over the models that scored it; 0 with one.
    """

    value: np.ndarray
    spread: np.ndarray


@dataclass
class _Launched:
    """A batch that the models are at work on; ``values`` (models, B) may not be there before ``event``."""

    batch: Batch
    values: Tensor
    event: torch.cuda.Event | None


class ScoringPass:
    """Scores what a feed of some episodes gives."""

    def __init__(
        self,
        episodes: Sequence[EpisodeFrames],
        items: Sequence[Sequence[int]],
        models: ScoringModels,
        on_scored: Callable[[str, EpisodeScores], None],
        on_failed: Callable[[str, InputError], None],
    ) -> None:
        """``items`` hold positions in ``episodes``, as the groups of the feed; each has one set of models."""
        self._episodes, self._models = episodes, models
        self._on_scored, self._on_failed = on_scored, on_failed
        firsts = [episodes[item[0]] for item in items]
        self._chosen = [models.allowed(first.episode_id, first.content) for first in firsts]
        tasks = list(dict.fromkeys(e.task for e in episodes))
        self._tasks = tasks
        self._task_of_episode = torch.tensor([tasks.index(e.task) for e in episodes], device=models.device)
        self._open: dict[int, np.ndarray] = {}
        self._missing: dict[int, int] = {}
        self._failed: set[int] = set()
        self._tokens: dict[int, Tensor] = {}
        self._copies = torch.cuda.Stream(models.device) if models.device.type == "cuda" else None

    def run(self, feed: FrameFeed) -> None:
        """Works until the feed ends. A GPU gets the next batch before the values of the last are fetched."""
        lag = 0 if self._copies is None else 1
        launched: deque[_Launched] = deque()
        with torch.inference_mode(), self._models.autocast():
            for item in feed:
                if isinstance(item, Unreadable):
                    self._fail(item.episode, item.error)
                    continue
                launched.append(self._launch(item))
                while len(launched) > lag:
                    self._collect(launched.popleft(), feed)
            while launched:
                self._collect(launched.popleft(), feed)

    def _launch(self, batch: Batch) -> _Launched:
        images, state, episodes = self._on_device(batch)
        tasks = self._task_of_episode[episodes]
        values = torch.stack(
            [
                self._models.bins.expectation(
                    self._models.network(i)(images, state, self._tokens_of(i)[tasks])
                )
                for i in self._chosen[batch.group]
            ]
        )
        if self._copies is None:
            return _Launched(batch, values, None)
        fetched = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        fetched.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return _Launched(batch, fetched, event)

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's tensors where the models are; on a GPU copied while it works on the batch before."""
        tensors = (batch.images, batch.state, batch.episodes)
        if self._copies is None:
            return tensors
        device, current = self._models.device, torch.cuda.current_stream(self._models.device)
        with torch.cuda.stream(self._copies):
            images, state, episodes = (t.to(device, non_blocking=True) for t in tensors)
        current.wait_stream(self._copies)
        for tensor in (images, state, episodes):
            tensor.record_stream(current)
        return images, state, episodes

    def _tokens_of(self, model: int) -> Tensor:
        """All tasks' tokens for one model, int64 ``(tasks, words)``."""
        if model not in self._tokens:
            found = self._models.network(model).tokenize(self._tasks)
            self._tokens[model] = found.to(self._models.device)
        return self._tokens[model]

    def _collect(self, launched: _Launched, feed: FrameFeed) -> None:
        """Waits for a batch's values, lets go of its buffer, and gives away the episodes it completes."""
        if launched.event is not None:
            launched.event.synchronize()
        found = launched.values.numpy()
        feed.release(launched.batch)
        for part in launched.batch.stretches:
            if part.episode in self._failed:
                continue
            values = found[:, part.row : part.row + part.count]
            finite = np.isfinite(values).all(axis=0)
            if not finite.all():
                self._fail(
                    part.episode, self._not_finite(part.episode, part.first_frame + int(np.argmin(finite)))
                )
                continue
            self._keep(part.episode, part.first_frame, values)

    def _keep(self, position: int, first_frame: int, values: np.ndarray) -> None:
        length = self._episodes[position].length
        if position not in self._open:
            self._open[position] = np.full((len(values), length), np.nan, np.float32)
        self._open[position][:, first_frame : first_frame + values.shape[1]] = values
        self._missing[position] = self._missing.get(position, length) - values.shape[1]
        if self._missing[position] == 0:
            of_models = self._open.pop(position).astype(np.float64)
            scores = EpisodeScores(
                of_models.mean(axis=0).astype(np.float32), of_models.std(axis=0).astype(np.float32)
            )
            self._on_scored(self._episodes[position].episode_id, scores)

    def _fail(self, position: int, error: InputError) -> None:
        self._failed.add(position)
        self._open.pop(position, None)
        self._on_failed(self._episodes[position].episode_id, error)

    def _not_finite(self, position: int, frame: int) -> InputError:
        return InputError(
            f"frame {frame} of episode {self._episodes[position].episode_id} gets a value that is not "
            "finite: look for NaN in its states"
        )
