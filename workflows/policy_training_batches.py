"""The batches that a policy is trained on: which frames, with which prompt, through its own preprocessor."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.frame_subtasks import FrameSubtasks
from pipeline.frame_table import FrameTable
from pipeline.policy.checkpoint import Checkpoint
from pipeline.policy.policy_frames import PolicyFrames
from pipeline.prompts import drop_indicators
from workflows.batch_sampling import make_sampler
from workflows.policy_training_config import PolicyTrainingConfig


class PolicyBatches:
    """Draws batches for ever; one generator decides frames and dropped indicators."""

    def __init__(
        self,
        table: FrameTable,
        indicators: np.ndarray,
        frame_mask: np.ndarray | None,
        config: PolicyTrainingConfig,
        model: Checkpoint,
        subtasks: FrameSubtasks | None = None,
        rows: slice = slice(None),
    ) -> None:
        """``indicators`` (N,) int8, ``frame_mask`` (N,) bool and ``subtasks`` are as in ``train_policy``.

        ``rows`` of each batch are gathered, one process's share: which frames it has is drawn alike in all.
        Raises ``InputError`` where the policy needs a camera that the table lacks, and for no frames.
        """
        self._rng = np.random.default_rng([config.seed, 0])
        self._sampler = make_sampler(indicators, frame_mask, config.positive_share, self._rng)
        self._indicators, self._size = indicators, config.batch_size
        self._rows, self._dropout = rows, config.indicator_dropout
        self._preprocessor = model.preprocessor
        self._frames = PolicyFrames(table, model.policy.config, subtasks)

    def draw(self) -> dict[str, Any]:
        """The next preprocessed batch; indicators are dropped anew at every call."""
        indices = self._sampler.draw(self._size)
        codes = drop_indicators(self._indicators[indices], self._dropout, self._rng)
        return self._preprocessor(self._frames.batch(indices[self._rows], codes[self._rows]))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that decides the batches to come: arrays by name, and plain JSON."""
        arrays, drawn = self._sampler.state()
        return arrays, {"drawn": drawn, "generator": self._rng.bit_generator.state}

    def restore(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Goes on as from :meth:`state`."""
        self._sampler.restore(arrays, facts["drawn"])
        self._rng.bit_generator.state = facts["generator"]
