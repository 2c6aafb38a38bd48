"""The tasks of the simulated workplace, by name."""

from __future__ import annotations

from pipeline.errors import InputError

TASKS = (
    "pick up the red cube",
    "pick up the blue cube",
    "place the red cube on the blue cube",
    "place the blue cube on the red cube",
)
LIFT_HEIGHT = 0.06  # a cube counts as picked up this far above where it rests, m


def split_task(task: str) -> tuple[str, str | None]:
    """(cube to move, cube to put it on or ``None``) of one of :data:`TASKS`; else ``InputError``."""
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}; the simulation has: {', '.join(TASKS)}")
    words = task.split()
    return (words[3], None) if words[0] == "pick" else (words[2], words[6])
