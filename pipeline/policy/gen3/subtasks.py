"""Sub-tasks as text: in prompts, as words that a backbone predicts, and the choice among known ones.

pi0.5 (section IV) first predicts the sub-task's text from observation and task, then acts on it; pi*0.6
writes log p(a, l | o, I, task) = log p(l | o, task) + log p(a | o, I, task, l): the indicator comes after
the sub-task and says nothing about which it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.errors import InputError

OBS_SUBTASK = "observation.language.subtask"
UNKNOWN = -1

_SEPARATOR = ". Sub-task: "
_END = 0  # of the words: the sub-task is over


def with_subtask(task: str, subtask: str) -> str:
    """The task's text with its sub-task behind it; :func:`pipeline.prompts.prompt` takes it as a task.

    Raises ``InputError`` for an empty one and for a task that has one already.
    """
    if not subtask.strip() or _SEPARATOR in task:
        raise InputError(f"sub-task {subtask!r} of {task!r}: give one, which is not empty")
    return f"{task}{_SEPARATOR}{subtask.strip()}"


def split_subtask(text: str) -> tuple[str, str | None]:
    """The inverse: the task, and its sub-task if there is one."""
    task, separator, subtask = text.partition(_SEPARATOR)
    return (task, subtask) if separator else (text, None)


def subtask_number(subtask: str | None, known: Sequence[str]) -> int:
    """Which of ``known`` it is, whatever its case; ``UNKNOWN`` for none and for others."""
    names = [name.strip().lower() for name in known]
    wanted = (subtask or "").strip().lower()
    return names.index(wanted) if wanted in names else UNKNOWN


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
