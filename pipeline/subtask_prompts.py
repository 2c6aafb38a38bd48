"""Sub-tasks in a policy's text: ``"pick up the red cube. Sub-task: reach the cube"``.

pi0.5 (section IV) first predicts the sub-task's text from observation and task, then acts on it. In training
the prompt says which it is, before the indicator of :mod:`pipeline.prompts`; at inference nobody says it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import InputError

UNKNOWN = -1
"""The number of a sub-task that nobody named, or that is none of the known ones."""

_SEPARATOR = ". Sub-task: "


def subtask_name(text: str) -> str:
    """What people wrote, as one name: without case, and without more than one space between words."""
    return " ".join(text.split()).lower()


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
    names = [subtask_name(name) for name in known]
    wanted = subtask_name(subtask or "")
    return names.index(wanted) if wanted in names else UNKNOWN
