"""The advantage indicator as words behind the task: "Advantage: positive", as in pi*0.6."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from pipeline.policy.configuration_gen3_vla import Gen3VLAConfig
from pipeline.policy.processor_gen3_vla import hash_words

_WORDS = ("", "advantage negative", "advantage positive")
_COUNT = 2


def words_with_indicator(tokens: Tensor, indicator: Tensor, config: Gen3VLAConfig) -> Tensor:
    """Hashed words (B, max_words) with those of ``indicator`` (B,) in 0..2 behind them.

    A text that leaves no room for them loses its last words. As it is where ``indicator_input`` is a slot.
    """
    if config.indicator_input != "text":
        return tokens
    ends = _endings(config.word_buckets).to(tokens.device)[indicator]
    room = tokens.shape[1] - _COUNT
    places = (tokens != 0).sum(1).clamp_max(room)[:, None] + torch.arange(_COUNT, device=tokens.device)
    written = tokens.scatter(1, places, ends)
    return torch.where((indicator != 0)[:, None], written, tokens)


@lru_cache(maxsize=8)
def _endings(buckets: int) -> Tensor:
    return torch.tensor([hash_words(words, buckets, _COUNT) for words in _WORDS])
