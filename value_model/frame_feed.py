"""Frames of many episodes as batches of one size, read ahead by a thread into a few buffers used in turn.

The network should never wait for a disk, and memory should not grow with the number of episodes: so a
thread fills the next buffers while the network works on one, and a buffer is filled again as soon as it has
been let go. Batches are filled across episodes, within a group of them; a group's last batch is smaller.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import InputError

_WAIT_S = 0.1


class OpenFrames(Protocol):
    """An episode whose frames can be read now."""

    def read(self, start: int, images: np.ndarray, state: np.ndarray) -> None:
        """Fills ``(B, cameras, S, S, 3)`` uint8 and ``(B, state)`` float32 from frame ``start`` on."""


class EpisodeFrames(Protocol):
    """The frames of one episode, to be read once, in order."""

    @property
    def episode_id(self) -> str:
        """The episode."""

    @property
    def content(self) -> str:
        """The content key of its frames: equal for a copy under another id."""

    @property
    def task(self) -> str:
        """The task's text."""

    @property
    def length(self) -> int:
        """How many frames it has."""

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """Of one frame's images: cameras, S, S, 3."""

    @property
    def state_size(self) -> int:
        """The length of a frame's state."""

    def opened(self) -> AbstractContextManager[OpenFrames]:
        """Within: the frames can be read. Raises ``InputError`` where they cannot."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of one episode within a batch: its rows ``row`` to ``row + count``."""

    episode: int
    first_frame: int
    row: int
    count: int


@dataclass
class Batch:
    """B frames of one group. ``images`` (B, cameras, S, S, 3) uint8, ``state`` (B, state) float32.

    ``episodes`` (B,) int64 is each frame's position in the list of episodes. The tensors are views of a
    buffer: after :meth:`FrameFeed.release` they hold something else.
    """

    group: int
    slot: int
    images: Tensor
    state: Tensor
    episodes: Tensor
    stretches: list[Stretch] = field(default_factory=list)


@dataclass(frozen=True)
class Unreadable:
    """An episode, by its position, that could not be read to its end, and why."""

    episode: int
    error: InputError


@dataclass(frozen=True)
class _Slot:
    images: Tensor
    state: Tensor
    episodes: Tensor


class FrameFeed:
    """Iterates over batches of ``groups`` of episodes, reading ahead; a context manager.

    An episode that cannot be read gives an :class:`Unreadable` in between; the others go on.
    """

    def __init__(
        self,
        episodes: Sequence[EpisodeFrames],
        groups: Sequence[Sequence[int]],
        batch_size: int,
        *,
        depth: int = 3,
        pinned: bool = False,
    ) -> None:
        """``groups`` hold positions in ``episodes``; all of one shape. ``depth``: buffers in use at most.

        ``pinned``: in memory from which a GPU copies by itself.
        """
        self._episodes = episodes
        self._groups = groups
        self._batch_size = batch_size
        self._slots = [self._slot(batch_size, pinned) for _ in range(depth)]
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(depth):
            self._free.put(number)
        self._filled: queue.SimpleQueue[Batch | Unreadable | BaseException | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="frame-feed", daemon=True)

    def __enter__(self) -> Self:
        """Begins to read."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops reading."""
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Batch | Unreadable]:
        """What has been read, in order. Raises what the thread met with, other than unreadable episodes."""
        while (item := self._filled.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def release(self, batch: Batch) -> None:
        """Lets go of the batch's buffer, which is filled again."""
        self.give_back(batch.slot)

    def _slot(self, rows: int, pinned: bool) -> _Slot:
        first = self._episodes[0]
        return _Slot(
            torch.empty((rows, *first.image_shape), dtype=torch.uint8, pin_memory=pinned),
            torch.empty((rows, first.state_size), dtype=torch.float32, pin_memory=pinned),
            torch.empty(rows, dtype=torch.int64, pin_memory=pinned),
        )

    def _run(self) -> None:
        try:
            for number, group in enumerate(self._groups):
                self._fill_group(number, group)
        except _StoppedError:
            pass
        except BaseException as error:  # handed to whoever iterates, who raises it
            self._filled.put(error)
        self._filled.put(None)

    def _fill_group(self, number: int, group: Sequence[int]) -> None:
        writer = _BatchWriter(self, number)
        for position in group:
            try:
                with self._episodes[position].opened() as frames:
                    writer.add(position, frames, self._episodes[position].length)
            except InputError as error:
                writer.drop(position)
                self._filled.put(Unreadable(position, error))
        writer.finish()

    def take_slot(self) -> tuple[int, _Slot]:
        """A free buffer and its number; waits for one."""
        while not self._stop.is_set():
            with suppress(queue.Empty):
                number = self._free.get(timeout=_WAIT_S)
                return number, self._slots[number]
        raise _StoppedError

    def give_back(self, slot: int) -> None:
        """Makes a buffer free."""
        self._free.put(slot)

    def hand_over(self, batch: Batch) -> None:
        """Gives a filled batch to whoever iterates."""
        self._filled.put(batch)

    @property
    def batch_size(self) -> int:
        """Frames in a full batch."""
        return self._batch_size


class _StoppedError(Exception):
    """Nobody wants any more batches."""


class _BatchWriter:
    """Fills the batches of one group."""

    def __init__(self, feed: FrameFeed, group: int) -> None:
        self._feed, self._group = feed, group
        self._taken: tuple[int, _Slot] | None = None
        self._rows = 0
        self._stretches: list[Stretch] = []

    def add(self, position: int, frames: OpenFrames, length: int) -> None:
        """Reads all frames of one episode."""
        done = 0
        while done < length:
            if self._taken is None:
                self._taken = self._feed.take_slot()
            slot, row = self._taken[1], self._rows
            count = min(length - done, self._feed.batch_size - row)
            rows = slice(row, row + count)
            frames.read(done, slot.images[rows].numpy(), slot.state[rows].numpy())
            slot.episodes.numpy()[rows] = position
            self._stretches.append(Stretch(position, done, row, count))
            self._rows, done = row + count, done + count
            if self._rows == self._feed.batch_size:
                self.finish()

    def drop(self, position: int) -> None:
        """Forgets what the batch at hand has of an episode; it is always the last there."""
        self._stretches = [s for s in self._stretches if s.episode != position]
        self._rows = sum(s.count for s in self._stretches)

    def finish(self) -> None:
        """Hands over the batch at hand, or gives its buffer back where it is empty."""
        if self._taken is None or self._rows == 0:
            if self._taken is not None:
                self._feed.give_back(self._taken[0])
                self._taken = None
            return
        number, slot = self._taken
        part = slice(0, self._rows)
        self._feed.hand_over(
            Batch(
                self._group, number, slot.images[part], slot.state[part], slot.episodes[part], self._stretches
            )
        )
        self._taken, self._rows, self._stretches = None, 0, []
