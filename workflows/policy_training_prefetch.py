"""Batches drawn one ahead, in a thread, while the network computes on the one before."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from workflows.policy_training_loop import Batches

State = tuple[dict[str, np.ndarray], dict[str, Any]]


class PrefetchedBatches:
    """The batches of another source, in its order, each drawn while the one before is in use.

    The source is used in one thread alone, which begins with the first :meth:`draw` and lives until
    :meth:`close`; within, torch computes with one thread. What the thread drew last may never be asked for.
    """

    def __init__(self, batches: Batches) -> None:
        """Draws nothing yet."""
        self._batches = batches
        self._thread: ThreadPoolExecutor | None = None
        self._next: Future[tuple[dict[str, Any], State]] | None = None
        # The source's behind the batch that was handed out last; None while there is no thread.
        self._state: State | None = None

    def draw(self) -> dict[str, Any]:
        """The next batch. Raises what drawing it raised, and then at every further call."""
        if self._thread is None:
            self._state = self._batches.state()
            # More threads would be taken from the network.
            self._thread = ThreadPoolExecutor(1, "batches", initializer=torch.set_num_threads, initargs=(1,))
            self._next = self._thread.submit(self._draw_one)
        assert self._next is not None
        batch, self._state = self._next.result()
        self._next = self._thread.submit(self._draw_one)
        return batch

    def state(self) -> State:
        """All that decides the batches to come, the first of which is the next that :meth:`draw` gives."""
        return self._batches.state() if self._state is None else self._state

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Goes on as from :meth:`state`; what was drawn ahead is dropped."""
        self.close()
        self._batches.restore(arrays, facts)

    def close(self) -> None:
        """Waits for the thread's end; the source then stands behind the batch that was handed out last."""
        if self._thread is None or self._state is None:
            return
        self._thread.shutdown(cancel_futures=True)
        self._batches.restore(*self._state)
        self._thread = self._next = self._state = None

    def _draw_one(self) -> tuple[dict[str, Any], State]:
        batch = self._batches.draw()
        return batch, self._batches.state()
