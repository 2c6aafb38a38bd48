"""Several observations at once: their axis, their padding, and the queue that collects them while acting."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from torch import Tensor

STATE_IS_PAD = f"{OBS_STATE}_is_pad"


def observed_keys(batch: Mapping[str, Any]) -> list[str]:
    """The keys of a batch that have an axis of observations in a policy with history."""
    images = [k for k in batch if k.startswith(f"{OBS_IMAGES}.") and not k.endswith("_is_pad")]
    return [OBS_STATE, *images]


def with_history(batch: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """``batch`` with (B, steps, ...) observations and the mask ``observation.state_is_pad`` (B, steps).

    Observations without the axis are an episode's first: they repeat, marked as padding, which is what
    training makes of frames before the start.
    """
    state = batch[OBS_STATE]
    if state.ndim == 3:
        absent = torch.zeros(state.shape[:2], dtype=torch.bool, device=state.device)
        return {STATE_IS_PAD: absent, **batch}
    repeated = {
        key: batch[key][:, None].expand(-1, steps, *batch[key].shape[1:]) for key in observed_keys(batch)
    }
    padded = (torch.arange(steps, device=state.device) < steps - 1).expand(len(state), -1)
    return {**batch, **repeated, STATE_IS_PAD: padded}


def one_by_one(batch: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """A batch of B x steps single observations from one (B, steps, ...); other tensors repeat."""
    observed = observed_keys(batch)
    size = len(batch[OBS_STATE])
    apart = {
        key: value.repeat_interleave(steps, 0)
        for key, value in batch.items()
        if isinstance(value, Tensor) and key not in observed and value.ndim and len(value) == size
    }
    lists = {k: [row for row in v for _ in range(steps)] for k, v in batch.items() if isinstance(v, list)}
    return {**apart, **lists, **{key: batch[key].flatten(0, 1) for key in observed}}


class ObservationQueue:
    """The last ``steps`` observations of an episode, while acting."""

    def __init__(self, steps: int) -> None:
        """Starts empty."""
        self._seen: deque[dict[str, Any]] = deque(maxlen=steps)
        self._steps = steps

    def clear(self) -> None:
        """Forgets them: an episode starts."""
        self._seen.clear()

    def add(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """``batch``, one observation, with those before it: (B, steps, ...), padded at the episode's start.

        A batch that brings its own axis is given back as it is.
        """
        if batch[OBS_STATE].ndim == 3:
            return with_history(batch, self._steps)
        keys = observed_keys(batch)
        self._seen.append({key: batch[key] for key in keys})
        lacking = self._steps - len(self._seen)
        row = [self._seen[0]] * lacking + list(self._seen)
        together = {key: torch.stack([seen[key] for seen in row], dim=1) for key in keys}
        state = batch[OBS_STATE]
        padded = (torch.arange(self._steps, device=state.device) < lacking).expand(len(state), -1)
        return {**batch, **together, STATE_IS_PAD: padded}
