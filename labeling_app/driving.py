"""Who drove when: an episode's frames as the few spans that a person wants to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.episode import Source


@dataclass(frozen=True)
class Driver:
    """How one source of actions is shown: in words, in Streamlit's name of a colour, and as RGB in films."""

    words: str
    colour: str
    rgb: tuple[int, int, int]


DRIVERS: dict[Source, Driver] = {
    Source.TELEOP: Driver("a person drove", "violet", (132, 94, 247)),
    Source.POLICY: Driver("the policy drove", "blue", (28, 126, 214)),
    Source.INTERVENTION: Driver("a person corrected", "orange", (247, 103, 7)),
}


@dataclass(frozen=True)
class Span:
    """A stretch of an episode with one driver, in seconds from the episode's start; ``end_s`` is excluded."""

    start_s: float
    end_s: float
    source: Source


def driving_spans(sources: Sequence[int], rate_hz: float) -> list[Span]:
    """The spans of an episode, in order and without gaps; ``sources`` has one ``Source`` per frame."""
    spans: list[Span] = []
    start = 0
    for index in range(1, len(sources) + 1):
        if index == len(sources) or sources[index] != sources[start]:
            spans.append(Span(start / rate_hz, index / rate_hz, Source(int(sources[start]))))
            start = index
    return spans


def legend(spans: Sequence[Span]) -> str:
    """The bar's legend as Streamlit Markdown: each driver that occurs, and when a person corrected."""
    parts = []
    for source, driver in DRIVERS.items():
        own = [span for span in spans if span.source is source]
        if not own:
            continue
        when = ""
        if source is Source.INTERVENTION:
            when = ": " + ", ".join(f"{span.start_s:.1f}–{span.end_s:.1f} s" for span in own)
        parts.append(f":{driver.colour}[■] {driver.words}{when}")
    return " \u2003 ".join(parts)
