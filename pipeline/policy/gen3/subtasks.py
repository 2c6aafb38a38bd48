"""Sub-tasks as words that a backbone predicts, and the choice among known ones.

pi*0.6 writes log p(a, l | o, I, task) = log p(l | o, task) + log p(a | o, I, task, l): the indicator comes
after the sub-task and says nothing about which it is. How prompts say them: :mod:`pipeline.subtask_prompts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.subtask_prompts import UNKNOWN

OBS_SUBTASK = "observation.language.subtask"

_END = 0  # of the words: the sub-task is over


class SubtaskWords:
    """The known sub-tasks as rows of word numbers, each ended by 0, (S, L) int64."""

    def __init__(self, known: Sequence[str]) -> None:
        """``known``: a sentence each."""
        sentences = [name.lower().split() for name in known]
        words = sorted({word for sentence in sentences for word in sentence})
        number = {word: i + 1 for i, word in enumerate(words)}
        self.size = len(words) + 1
        self.length = max(len(sentence) for sentence in sentences) + 1
        rows = [[number[word] for word in sentence] for sentence in sentences]
        self.rows = torch.tensor([row + [_END] * (self.length - len(row)) for row in rows])

    def counted(self, chosen: Tensor) -> Tensor:
        """Which words of the sub-tasks ``chosen`` (B,) are theirs, their end included: (B, L) bool."""
        rows = self.rows.to(chosen.device)[chosen.clamp_min(0)]
        ended = (rows == _END).cumsum(1)
        return (ended - (rows == _END).long() == 0) & (chosen != UNKNOWN)[:, None]

    def possible(self, alive: Tensor, place: int) -> Tensor:
        """Which words may stand at ``place``: (B, size) bool, for the sub-tasks ``alive`` (B, S) bool."""
        words = self.rows.to(alive.device)[:, place]
        allowed = torch.zeros(len(alive), self.size, device=alive.device)
        return allowed.index_add(1, words, alive.float()) > 0

    def narrowed(self, alive: Tensor, place: int, word: Tensor) -> Tensor:
        """Which of them are left when ``word`` (B,) stands at ``place``."""
        return alive & (self.rows.to(alive.device)[:, place] == word[:, None])
