"""A torch dataset over cached frames: observations with history, action chunks, prompts, scores.

Samples have the keys and shapes that LeRobot's datasets give and its policies expect. Whole batches are
gathered at once, one copy of each frame's images, so give a ``DataLoader`` :func:`as_is` to collate by::

    dataset = FrameDataset(table, chunk=16, indicators=indicators, indicator_dropout=0.3)
    loader = DataLoader(dataset, batch_size=64, shuffle=True, collate_fn=as_is)
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        for batch in loader:
            ...

The same works in worker processes, forked or spawned: they map the cache's files themselves. But a batch
is gathered about as fast as memory can be copied, and handing it over from a worker takes longer than
that: with no workers (``num_workers=0``) it is fastest.
"""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pipeline.errors import InputError
from pipeline.frame_subtasks import FrameSubtasks
from pipeline.frame_table import FrameTable
from pipeline.prompts import INDICATOR_NAMES, NONE, check_indicators, drop_indicators, prompt
from pipeline.subtask_prompts import with_subtask

# LeRobot's names, spelled out: importing its constants takes seconds.
STATE = "observation.state"
IMAGES = "observation.images"
ACTION = "action"
PAD_SUFFIX = "_is_pad"

Sample = dict[str, Any]

# Of one size, that wait to be filled again: a loop holds the batch before while it asks for the next.
_FREE_BUFFERS = 2


class FrameDataset(Dataset[Sample]):
    """Samples of a :class:`FrameTable`: the one of a row is what was seen there and what was done then.

    A sample has, for history H and a chunk of K actions:

    ``observation.images.<camera>`` (H + 1, 3, S, S) uint8 RGB, oldest first, the row's own last; a view,
    in memory with channels last; ``observation.state`` (H + 1, 15) float32; for each of these
    ``<key>_is_pad`` (H + 1,) bool. Before the episode's start the first frame repeats, marked as
    padding. With H = 0 there is neither the leading axis nor these masks, as policies of one
    observation expect it.

    ``action`` (K, 7) float32, the row's own first; past the episode's end the last one repeats, and
    ``action_is_pad`` (K,) bool is True. ``task``: the prompt, the episode's task with the row's sub-task,
    where it is known, and its indicator. ``index``: the row in the table, int64. And each of ``scores``,
    float32.

    Which indicators are dropped is decided by ``seed`` and the epoch for each row of the table: neither
    the order of the samples nor the number of workers matters.
    """

    def __init__(
        self,
        table: FrameTable,
        *,
        chunk: int,
        history: int = 0,
        rows: np.ndarray | None = None,
        indicators: np.ndarray | None = None,
        indicator_dropout: float = 0.0,
        seed: int = 0,
        scores: Mapping[str, np.ndarray] | None = None,
        subtasks: FrameSubtasks | None = None,
    ) -> None:
        """``rows`` (M,) of the table are served in that order; ``None``: all N.

        ``indicators`` (N,) int8; ``None``: bare tasks. ``scores`` (value, advantage, …) are (N,) each.
        ``subtasks``: those of the N frames, which the prompts then say; ``None``: no prompt says any.
        Raises ``InputError`` for arrays that do not fit.
        """
        if chunk < 1 or history < 0:
            raise InputError(f"a chunk of {chunk} actions and {history} past frames: 1 and 0 are the least")
        self.table = table
        self.chunk = chunk
        self.history = history
        self.rows = np.arange(len(table)) if rows is None else _checked_rows(rows, len(table))
        self._indicators = _checked_indicators(indicators, len(table))
        self._dropout = indicator_dropout
        self._seed = seed
        self._scores = {name: _checked_score(name, values, table) for name, values in (scores or {}).items()}
        self._prompts = _Prompts(table, subtasks)
        # In shared memory, so that workers that live on hear of a new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._dropped_for = -1
        self._kept = self._indicators
        self._buffers = _Buffers()
        self.indicators()  # refuses a dropout out of range now, not in a worker

    def set_epoch(self, epoch: int) -> None:
        """Decides anew which indicators are dropped; call it before iterating over a loader."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """M, the number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """One sample, without a batch axis."""
        batch = self.__getitems__([index])
        return {key: value[0] for key, value in batch.items()}

    def __getitems__(self, indices: Sequence[int]) -> Sample:
        """A whole batch: every tensor with a leading axis B, ``task`` a list of B prompts."""
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        batch = self.batch(rows, self.indicators()[rows])
        batch["index"] = torch.from_numpy(rows)
        for name, values in self._scores.items():
            batch[name] = torch.from_numpy(values[rows])
        return batch

    def indicators(self) -> np.ndarray:
        """The indicators of all N rows of the table in this epoch, (N,) int8."""
        epoch = int(self._epoch)
        if self._dropped_for != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            self._kept = drop_indicators(self._indicators, self._dropout, rng)
            self._dropped_for = epoch
        return self._kept

    def batch(self, rows: np.ndarray, indicators: np.ndarray) -> Sample:
        """Observations, actions and prompts of B ``rows`` of the table under these (B,) ``indicators``.

        For callers that sample rows and drop indicators themselves.
        """
        table = self.table
        actions, actions_padded = table.action_chunks(rows, self.chunk)
        episodes = table.episode_index[rows].astype(np.int64)
        batch: Sample = {
            ACTION: torch.from_numpy(actions),
            ACTION + PAD_SUFFIX: torch.from_numpy(actions_padded),
            "task": self._prompts.of(rows, episodes, indicators),
        }
        if self.history == 0:
            batch[STATE] = torch.from_numpy(table.state[rows])
            images = self._images(rows)
        else:
            seen, padded = self._history(rows, episodes)
            mask = torch.from_numpy(padded)
            batch[STATE], batch[STATE + PAD_SUFFIX] = torch.from_numpy(table.state[seen]), mask
            images = self._images(seen.ravel()).unflatten(0, seen.shape)
            batch |= {f"{IMAGES}.{camera}{PAD_SUFFIX}": mask for camera in table.cameras}
        # Channels first as a view: the bytes stay where they were copied to.
        images = images.movedim(-1, -3)
        batch |= {f"{IMAGES}.{camera}": images.select(-4, i) for i, camera in enumerate(table.cameras)}
        return batch

    def _history(self, rows: np.ndarray, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each row the H + 1 rows seen up to it, (B, H + 1), and which of them repeat the first frame."""
        wanted = rows[:, None] + np.arange(-self.history, 1)
        first = self.table.starts[episodes][:, None]
        return np.maximum(wanted, first), wanted < first

    def _images(self, rows: np.ndarray) -> torch.Tensor:
        """The images of B rows, (B, cameras, S, S, 3) uint8."""
        memory = self._buffers.take((len(rows), *self.table.image_shape))
        return torch.from_numpy(self.table.images(rows, memory))

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what can be derived again; the table leaves out images that are in files."""
        return {**self.__dict__, "_kept": None, "_dropped_for": -1}


class _Prompts:
    """The prompts of a table's frames: each text is made once, for a task, a sub-task and an indicator."""

    def __init__(self, table: FrameTable, subtasks: FrameSubtasks | None) -> None:
        """Raises ``InputError`` for sub-tasks of another number of frames, and tasks that are no prompt."""
        if subtasks is not None and len(subtasks.codes) != len(table):
            raise InputError(f"there are {len(table)} frames and sub-tasks of {len(subtasks.codes)}")
        tasks = sorted(set(table.tasks))
        number = {task: i for i, task in enumerate(tasks)}
        self._task_of_episode = np.array([number[task] for task in table.tasks], dtype=np.int64)
        self._codes = None if subtasks is None else subtasks.codes
        names = () if subtasks is None else subtasks.names
        self._kinds = 1 + len(names)
        self._texts = [
            prompt(whole, INDICATOR_NAMES[code])
            for task in tasks
            for whole in (task, *(with_subtask(task, name) for name in names))
            for code in sorted(INDICATOR_NAMES)
        ]

    def of(self, rows: np.ndarray, episodes: np.ndarray, indicators: np.ndarray) -> list[str]:
        """Those of B rows (B,) of these ``episodes`` (B,) int64 under these ``indicators`` (B,) int8."""
        numbers = self._task_of_episode[episodes] * self._kinds
        if self._codes is not None:
            numbers = numbers + 1 + self._codes[rows]  # UNKNOWN is -1: the task alone
        numbers = numbers * len(INDICATOR_NAMES) + (indicators - NONE)
        return [self._texts[number] for number in numbers.tolist()]


def as_is(batch: Any) -> Any:
    """For ``DataLoader(collate_fn=as_is)``: a :class:`FrameDataset` gives whole batches already."""
    return batch


class _Buffers:
    """Memory for batches: that of one which nobody holds any more is filled again.

    Fresh memory would cost a page fault every few kilobytes, more than the copying itself.
    """

    def __init__(self) -> None:
        """Starts with none."""
        self._free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of that shape, uint8, not initialised; its memory comes back when it is gone."""
        size = math.prod(shape)
        memory = None
        while self._free and memory is None:
            former = self._free.pop()
            memory = former if len(former) == size else None
        if memory is None:
            # Aligned to a page, as the frames' files are: 16 bytes off, where numpy begins an array,
            # copying from a file takes up to three times as long.
            spacious = np.empty(size + mmap.PAGESIZE, dtype=np.uint8)
            start = -spacious.ctypes.data % mmap.PAGESIZE
            memory = spacious[start : start + size]
        array = memory.reshape(shape)
        weakref.finalize(array, self._give_back, memory).atexit = False
        return array

    def _give_back(self, memory: np.ndarray) -> None:
        if len(self._free) < _FREE_BUFFERS:
            self._free.append(memory)

    def __reduce__(self) -> tuple[type[_Buffers], tuple[()]]:
        """Another process has memory of its own."""
        return _Buffers, ()


def _checked_rows(rows: np.ndarray, frames: int) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"rows are {rows.dtype} {rows.shape}: give (M,) whole numbers")
    if len(rows) and not 0 <= rows.min() <= rows.max() < frames:
        raise InputError(f"rows go from {rows.min()} to {rows.max()}, the table has {frames} frames")
    return rows.astype(np.int64)


def _checked_indicators(indicators: np.ndarray | None, frames: int) -> np.ndarray:
    if indicators is None:
        return np.full(frames, NONE, np.int8)
    check_indicators(indicators)
    if len(indicators) != frames:
        raise InputError(f"there are {frames} frames and indicators of shape {indicators.shape}")
    return indicators


def _checked_score(name: str, values: np.ndarray, table: FrameTable) -> np.ndarray:
    if np.shape(values) != (len(table),):
        raise InputError(f"score {name!r} has shape {np.shape(values)}: give ({len(table)},), one a frame")
    return np.asarray(values, dtype=np.float32)
