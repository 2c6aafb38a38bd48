"""What a new ``gen3_vla`` learns from a training set's actions before its first gradient step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import NormalizerProcessorStep

from pipeline.frame_table import FrameTable
from pipeline.policy.modeling_gen3_vla import Gen3VLAPolicy

if TYPE_CHECKING:
    from pipeline.policy.checkpoint import Checkpoint

# Chunks that FAST's merges are counted on: more hardly change them.
_MOST_CHUNKS = 5_000


def fit_to_table(model: Checkpoint, table: FrameTable, used: np.ndarray) -> None:
    """Lets the policy learn its action tokens from the frames of ``table`` that ``used`` (N,) bool marks.

    To be called once, on a new checkpoint, before training. Nothing happens for policies that have nothing to
    learn. The same table gives the same tokens: no random numbers are drawn.
    """
    policy = model.policy
    if not isinstance(policy, Gen3VLAPolicy) or not policy.learns_from_actions:
        return
    rows = np.flatnonzero(used)
    rows = rows[:: max(1, len(rows) // _MOST_CHUNKS)]
    chunks, _ = table.action_chunks(rows, policy.config.chunk_size)
    normaliser = next(step for step in model.preprocessor.steps if isinstance(step, NormalizerProcessorStep))
    scaled = normaliser({TransitionKey.ACTION: torch.from_numpy(chunks)})[TransitionKey.ACTION]
    assert isinstance(scaled, torch.Tensor)
    policy.fit_actions(scaled.clamp(-1.0, 1.0).cpu())
