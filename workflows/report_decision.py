"""The report's tables of how a decision came about: the looks at the evaluation, and the guard rails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.iteration_records import GUARD_WORDS, LOOK_WORDS
from workflows.comparison import Performance
from workflows.report_words import estimate_text, number, percent, signed

_FORMATS: dict[str, Callable[[float], str]] = {
    "starts": number,
    "difference": lambda value: signed(value, 1),
    "p": lambda value: f"{value:.2g}",
    "bound": lambda value: f"{value:.3g}",
    "chance": percent,
    "worse": lambda value: signed(value, 1),
    "low": lambda value: signed(value, 1),
    "high": lambda value: signed(value, 1),
}


@dataclass(frozen=True)
class WordsTable:
    """Headings and rows of text; ``numeric`` says of each column whether it is to stand to the right."""

    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


def looks_table(looks: Sequence[Mapping[str, Any]]) -> WordsTable | None:
    """The looks at the data, in order; ``None`` where there is none.

    A bound of 0 is one that no p can reach, as where no start could tell the two apart: it is shown as none.
    """
    return _table(
        [{**look, "bound": look["bound"] or None} if "bound" in look else look for look in looks], LOOK_WORDS
    )


def guards_table(guards: Sequence[Mapping[str, Any]]) -> WordsTable | None:
    """The guard rails; ``None`` where there is none."""
    return _table(guards, GUARD_WORDS)


def _table(rows: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> WordsTable | None:
    """Known names in their order and words, others after them as they are called."""
    found = list(dict.fromkeys(name for row in rows for name in row))
    names = [*(name for name in words if name in found), *(name for name in found if name not in words)]
    names = [name for name in names if words.get(name, name)]
    if not names:
        return None
    numeric = tuple(all(_is_number(row.get(name)) for row in rows) for name in names)
    return WordsTable(
        tuple(words.get(name, name) for name in names),
        numeric,
        tuple(tuple(_text(name, row.get(name)) for name in names) for row in rows),
    )


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _text(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _FORMATS.get(name, lambda v: f"{v:.3g}")(value)
    return str(value)


@dataclass(frozen=True)
class TaskRow:
    """One policy on one task; ``task`` is empty where the row before has the same."""

    task: str
    policy: str
    attempts: str
    rate: str
    per_hour: str
    share: float


def task_rows(by_task: Mapping[str, Mapping[str, Performance]]) -> list[TaskRow]:
    """Each policy on each task, task by task; empty where there is one task only."""
    if len(by_task) < 2:
        return []
    return [
        TaskRow(
            task if place == 0 else "",
            name,
            number(found.attempts),
            estimate_text(found.success_rate, share=True),
            estimate_text(found.successes_per_hour),
            found.success_rate.value,
        )
        for task, performances in by_task.items()
        for place, (name, found) in enumerate(performances.items())
    ]
