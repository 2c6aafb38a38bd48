"""What a policy is told: the task, and whether the action it imitates was better than usual.

The indicator of Amin et al., "pi*0.6: a VLA that learns from experience" (2025), is plain text behind
the task: ``"pick up the red cube. Advantage: positive"``. In training it is left out of a share of
the frames, so that one network learns both the conditional and the unconditional action distribution.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.errors import InputError

Indicator = Literal["positive", "negative"]

# How an indicator is stored in arrays: one int8 per frame.
POSITIVE = 1
NEGATIVE = 0
NONE = -1

INDICATOR_NAMES: dict[int, Indicator | None] = {POSITIVE: "positive", NEGATIVE: "negative", NONE: None}

_SEPARATOR = ". Advantage: "
_SUFFIXES: dict[Indicator, str] = {
    "positive": f"{_SEPARATOR}positive",
    "negative": f"{_SEPARATOR}negative",
}


def prompt(task: str, indicator: Indicator | None) -> str:
    """The text given to the policy: ``task`` alone, or ``task`` followed by its indicator.

    Raises ``InputError`` for an unknown indicator, and for a task that :func:`parse_prompt` could not
    give back: an empty one, one with white space around it, or one that already ends in an indicator.
    """
    if not task or task != task.strip():
        raise InputError(f"task {task!r} is empty or has white space around it: give the bare task text")
    if parse_prompt(task)[1] is not None:
        raise InputError(f"task {task!r} already ends in an indicator: give the bare task text")
    if indicator is None:
        return task
    if indicator not in _SUFFIXES:
        raise InputError(f"unknown indicator {indicator!r}: use 'positive', 'negative' or None")
    return task + _SUFFIXES[indicator]


def parse_prompt(text: str) -> tuple[str, Indicator | None]:
    """The inverse of :func:`prompt`: ``(task, indicator)``; any other text is a bare task."""
    for indicator, suffix in _SUFFIXES.items():
        if text.endswith(suffix) and len(text) > len(suffix):
            return text.removesuffix(suffix), indicator
    return text, None


def drop_indicators(indicators: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """A copy of the ``(N,)`` int8 indicators in which each is replaced by ``NONE`` with chance ``rate``.

    Exactly N uniform numbers are drawn whatever the indicators are, so that changing one frame's
    indicator never changes which other frames are dropped. Raises ``InputError`` when ``rate`` is not
    in [0, 1] or an indicator is none of ``POSITIVE``, ``NEGATIVE``, ``NONE``.
    """
    if not 0.0 <= rate <= 1.0:
        raise InputError(f"indicator dropout {rate} is not in [0, 1]")
    check_indicators(indicators)
    dropped = rng.random(len(indicators)) < rate
    return np.where(dropped, np.int8(NONE), indicators).astype(np.int8)


def check_indicators(indicators: np.ndarray) -> None:
    """Raises ``InputError`` unless ``indicators`` is a one-dimensional int8 array of the three codes."""
    if indicators.ndim != 1 or indicators.dtype != np.int8:
        raise InputError(
            f"indicators have shape {indicators.shape} and dtype {indicators.dtype}: use (N,) int8"
        )
    unknown = np.setdiff1d(indicators, list(INDICATOR_NAMES))
    if unknown.size:
        raise InputError(
            f"indicators hold {unknown.tolist()}: "
            f"use {POSITIVE} (positive), {NEGATIVE} (negative) or {NONE} (none)"
        )
