"""Who drove when: an episode's frames as the few spans that a person wants to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.episode import Source


@dataclass(frozen=True)
class Driver:
    """How one source of actions is shown: its name in style sheets, in words, and its colour as RGB."""

    name: str
    words: str
    rgb: tuple[int, int, int]


DRIVERS: dict[Source, Driver] = {
    Source.TELEOP: Driver("person", "a person drove", (132, 94, 247)),
    Source.POLICY: Driver("policy", "the policy drove", (28, 126, 214)),
    Source.INTERVENTION: Driver("correction", "a person corrected", (247, 103, 7)),
}


@dataclass(frozen=True)
class FrameSpan:
    """A stretch of an episode with one driver, in frames; ``end`` is excluded. ``source`` is a ``Source``."""

    start: int
    end: int
    source: int


def frame_spans(sources: Sequence[int]) -> list[FrameSpan]:
    """The spans of an episode, in order and without gaps; ``sources`` has one ``Source`` per frame."""
    spans: list[FrameSpan] = []
    start = 0
    for index in range(1, len(sources) + 1):
        if index == len(sources) or sources[index] != sources[start]:
            spans.append(FrameSpan(start, index, int(Source(int(sources[start])))))
            start = index
    return spans
