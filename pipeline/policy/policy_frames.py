"""From rows of a frame table to what a LeRobot policy's preprocessor takes: its history, its chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from pipeline.errors import InputError
from pipeline.frame_dataset import PAD_SUFFIX, FrameDataset
from pipeline.frame_subtasks import FrameSubtasks
from pipeline.frame_table import FrameTable

# Policies that take images as bytes, a quarter of the copying; all others want floats in [0, 1].
_TAKE_BYTES = frozenset({"gen3_vla"})
_LEARN_FROM_REWARDS = frozenset({"gaussian_actor"})  # says nothing of rewards in its configuration


def require_imitation(config: PreTrainedConfig) -> None:
    """Raises ``InputError`` for a policy that is not trained by imitating actions from what was seen."""
    seen = config.observation_delta_indices
    rewards = config.reward_delta_indices is not None or config.type in _LEARN_FROM_REWARDS
    if rewards or (seen and seen != list(range(seen[0], 1))):
        raise InputError(
            f"{config.type} learns from rewards or from what came later, which conditioned episodes do "
            "not give: choose a policy that imitates actions"
        )


def subtasks_said(config: PreTrainedConfig, subtasks: FrameSubtasks | None) -> FrameSubtasks | None:
    """What a policy of this configuration is told of its frames' ``subtasks``: those that it predicts.

    ``None`` for a policy that predicts none, as all of LeRobot's own: at inference nobody would say them.
    """
    known = getattr(config, "subtasks", None)
    return subtasks.known_as(known) if subtasks is not None and known else None


class PolicyFrames:
    """A :class:`FrameTable` as the policy of one configuration sees it.

    As LeRobot's datasets do, it follows ``observation_delta_indices`` (``None``: one observation without
    an axis for time) and ``action_delta_indices``, which may begin before the observation's own frame.
    """

    def __init__(
        self, table: FrameTable, config: PreTrainedConfig, subtasks: FrameSubtasks | None = None
    ) -> None:
        """``subtasks`` of the table's frames: the prompts say those of :func:`subtasks_said`.

        Raises ``InputError`` for a camera that the table lacks, a policy that needs rewards, and sub-tasks of
        another number of frames.
        """
        cameras = [key.removeprefix(f"{OBS_IMAGES}.") for key in config.image_features]
        absent = sorted(set(cameras) - set(table.cameras))
        if absent:
            raise InputError(f"the policy needs camera {absent[0]!r}; these episodes have {table.cameras}")
        require_imitation(config)
        seen = config.observation_delta_indices
        self._table, self._type = table, config.type
        self._history = None if seen is None else len(seen) - 1
        deltas = config.action_delta_indices or [0]
        self._first, self._chunk = deltas[0], len(deltas)
        said = subtasks_said(config, subtasks)
        self._frames = FrameDataset(table, chunk=self._chunk, history=self._history or 0, subtasks=said)
        self._observed = (OBS_STATE, *(f"{OBS_IMAGES}.{camera}" for camera in cameras))

    def batch(self, rows: np.ndarray, indicators: np.ndarray) -> dict[str, Any]:
        """B ``rows`` (B,) under these ``indicators`` (B,) int8: not yet preprocessed.

        State (B, 15) and images (B, 3, S, S), with an axis for time behind B where the policy has a
        history, float32 in [0, 1] or uint8; ``action`` (B, chunk, 7) and ``action_is_pad`` (B, chunk);
        ``task``, a list of B prompts.
        """
        everything = self._frames.batch(rows, indicators)
        batch = {key: everything[key] for key in (*self._observed, "task")}
        if self._history == 0:
            batch |= {key: batch[key].unsqueeze(1) for key in self._observed}
        if self._history is not None:
            batch |= {key + PAD_SUFFIX: self._padding(everything, key, len(rows)) for key in self._observed}
        if self._type not in _TAKE_BYTES:
            batch |= {key: batch[key].float().div_(255.0) for key in self._observed if key != OBS_STATE}
        if self._first == 0:
            return batch | {key: everything[key] for key in (ACTION, ACTION + PAD_SUFFIX)}
        return batch | self._actions(np.asarray(rows, dtype=np.int64))

    def _padding(self, everything: dict[str, Any], key: str, size: int) -> torch.Tensor:
        found: torch.Tensor | None = everything.get(key + PAD_SUFFIX)
        return torch.zeros(size, 1, dtype=torch.bool) if found is None else found

    def _actions(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Chunks that begin before the observation: outside the episode its first or last action repeats."""
        episodes = self._table.episode_index[rows].astype(np.int64)
        first = self._table.starts[episodes][:, None]
        last = first + self._table.lengths[episodes][:, None] - 1
        wanted = rows[:, None] + self._first + np.arange(self._chunk)
        return {
            ACTION: torch.from_numpy(self._table.action[np.clip(wanted, first, last)]),
            ACTION + PAD_SUFFIX: torch.from_numpy((wanted < first) | (wanted > last)),
        }
