"""Small charts over iterations as SVG inside the page: their colours follow it, light or dark.

Drawn here rather than by Matplotlib, which the pages of single iterations use: a chart takes a millisecond,
its points lead to the pages of their iterations, and every point says its number when it is pointed at. What
people typed gets into it as text alone.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

HEIGHT = 250
_NUDGE = 5.0  # pixels by which lines without a line stand beside the others
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 34
_MOST_LABELS = 16  # of iterations, below the axis
_COARSER = 12  # powers of ten by which an axis may get coarser than the data alone would have it
_FULL_DOTS = 30  # with more iterations than this, dots are small


@dataclass(frozen=True)
class Point:
    """One iteration's value, with its 95 % interval where there is one; ``filled`` as it is a full dot."""

    x: int
    y: float
    low: float | None = None
    high: float | None = None
    filled: bool = True


@dataclass(frozen=True)
class Line:
    """A named series; ``style`` is the class of its colour in the page's style sheet.

    Where it is not ``joined`` it is dots alone, a little to the right of those of other lines.
    """

    name: str
    style: str
    points: tuple[Point, ...]
    joined: bool = True


@dataclass(frozen=True)
class Layer:
    """One part of stacked bars: its amount by iteration."""

    name: str
    style: str
    amounts: Mapping[int, float]


@dataclass(frozen=True)
class Frame:
    """What the charts of a page share: the iterations, their pages, and events between two of them.

    ``events`` are ``(after which iteration, words)``; ``width`` is in pixels.
    """

    iterations: tuple[int, ...]
    links: Mapping[int, str]
    events: tuple[tuple[int, str], ...] = ()
    width: int = 620

    def x(self, iteration: float) -> float:
        """Where an iteration is, in pixels from the left."""
        first, last = self.iterations[0], self.iterations[-1]
        span = self.width - _LEFT - _RIGHT
        return _LEFT + span * (iteration - first + 0.5) / (last - first + 1)

    @property
    def step(self) -> float:
        """Pixels from one iteration to the next."""
        return (self.width - _LEFT - _RIGHT) / (self.iterations[-1] - self.iterations[0] + 1)


Words = Callable[[float], str]


def line_chart(
    frame: Frame, lines: Sequence[Line], words: Words, *, low: float | None = 0.0, high: float | None = None
) -> Markup:
    """Lines over iterations. ``low`` and ``high`` are ends of the y axis; ``None``: as the data have it."""
    ends = [v for line in lines for p in line.points for v in (p.y, p.low, p.high) if v is not None]
    if not ends:
        raise ValueError("nothing to draw")
    bottom = min(ends) if low is None else min(low, *ends)
    top = max(ends) if high is None else max(high, *ends)
    if low is not None and top <= bottom:
        # All of it lies on the axis: there it is drawn, below an axis of some height.
        top = bottom + 1.0
    svg, y = _canvas(frame, bottom, top, words, "; ".join(_told(line, words) for line in lines))
    for line in lines:
        group = ET.SubElement(svg, "g", {"class": f"line {line.style}"})
        if line.joined:
            path = " ".join(f"{frame.x(p.x):.1f},{y(p.y):.1f}" for p in line.points)
            ET.SubElement(group, "polyline", {"points": path})
        for point in line.points:
            _dot(group, frame, line, point, y, words)
    return _markup(svg)


def stack_chart(frame: Frame, layers: Sequence[Layer], words: Words) -> Markup:
    """Stacked bars over iterations."""
    tops = {n: sum(layer.amounts.get(n, 0.0) for layer in layers) for n in frame.iterations}
    alt = "; ".join(f"iteration {n}: {words(top)}" for n, top in tops.items())
    svg, y = _canvas(frame, 0.0, max(1.0, *tops.values()), words, alt)
    width = min(46.0, 0.72 * frame.step)
    for n in frame.iterations:
        below = 0.0
        place = _linked(svg, frame, n)
        for layer in layers:
            amount = layer.amounts.get(n, 0.0)
            if not amount:
                continue
            box = {
                "x": f"{frame.x(n) - width / 2:.1f}",
                "y": f"{y(below + amount):.1f}",
                "width": f"{width:.1f}",
                "height": f"{y(below) - y(below + amount):.1f}",
                "class": f"part {layer.style}",
            }
            ET.SubElement(
                ET.SubElement(place, "rect", box), "title"
            ).text = f"iteration {n}, {layer.name}: {words(amount)}"
            below += amount
    return _markup(svg)


def _canvas(
    frame: Frame, low: float, high: float, words: Words, alt: str
) -> tuple[ET.Element, Callable[[float], float]]:
    """The axes, and the function from a value to pixels from the top."""
    ticks = _ticks(low, high, words)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    inside = HEIGHT - _TOP - _BOTTOM

    def y(value: float) -> float:
        return _TOP + inside * (1 - (value - low) / (high - low))

    svg = ET.Element("svg", {"viewBox": f"0 0 {frame.width} {HEIGHT}", "role": "img", "class": "chart"})
    ET.SubElement(svg, "title").text = alt
    for tick in ticks:
        at = f"{y(tick):.1f}"
        ends = {"x1": str(_LEFT), "x2": str(frame.width - _RIGHT), "y1": at, "y2": at, "class": "grid"}
        ET.SubElement(svg, "line", ends)
        _text(svg, words(tick), _LEFT - 8, y(tick) + 4, "end")
    every = math.ceil(len(frame.iterations) / _MOST_LABELS)
    for place, n in enumerate(frame.iterations):
        if place % every == 0 or (n == frame.iterations[-1] and place % every > every / 2):
            _text(svg, str(n), frame.x(n), HEIGHT - _BOTTOM + 17, "middle")
    _text(svg, "iteration", frame.width - _RIGHT, HEIGHT - 3, "end")
    for after, what in frame.events:
        at = f"{frame.x(after + 0.5):.1f}"
        ends = {"x1": at, "x2": at, "y1": str(_TOP), "y2": str(HEIGHT - _BOTTOM), "class": "event"}
        ET.SubElement(ET.SubElement(svg, "line", ends), "title").text = what
        _text(svg, "↩", float(at), HEIGHT - _BOTTOM - 4, "middle")
    return svg, y


def _dot(
    group: ET.Element, frame: Frame, line: Line, point: Point, y: Callable[[float], float], words: Words
) -> None:
    x = frame.x(point.x) + (0.0 if line.joined else min(_NUDGE, 0.25 * frame.step))
    said = f"iteration {point.x}, {line.name}: {words(point.y)}"
    place = _linked(group, frame, point.x)
    if point.low is not None and point.high is not None:
        at = f"{x:.1f}"
        whisker = {"x1": at, "x2": at, "y1": f"{y(point.low):.1f}", "y2": f"{y(point.high):.1f}"}
        ET.SubElement(place, "line", {**whisker, "class": "whisker"})
        said += f" ({words(point.low)} to {words(point.high)})"
    radius = "4.5" if len(frame.iterations) <= _FULL_DOTS else "2.6"
    dot = {"cx": f"{x:.1f}", "cy": f"{y(point.y):.1f}", "r": radius}
    dot["class"] = "dot" if point.filled else "dot open"
    ET.SubElement(ET.SubElement(place, "circle", dot), "title").text = said


def _linked(parent: ET.Element, frame: Frame, n: int) -> ET.Element:
    """What belongs to an iteration leads to its page, where there is one."""
    if n not in frame.links:
        return ET.SubElement(parent, "g")
    return ET.SubElement(parent, "a", {"href": frame.links[n]})


def _text(parent: ET.Element, words: str, x: float, y: float, anchor: str) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ET.SubElement(parent, "text", place).text = words


def _ticks(low: float, high: float, words: Words) -> list[float]:
    """Up to seven round numbers that hold both ends between them, four at least where words allow.

    No two of them read alike: the axis is never finer than its numbers can say.
    """
    if high - low < 1e-9:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    steps = (size * 10.0**power * factor for power in range(_COARSER) for factor in (1, 2, 5))
    ticks: list[float] = []
    for step in (step for step in steps if step >= rough * 0.999):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = [k * step for k in range(first, max(last, first + 1) + 1)]
        if len({words(tick) for tick in ticks}) == len(ticks):
            break
    return ticks


def _told(line: Line, words: Words) -> str:
    return f"{line.name}: {', '.join(words(point.y) for point in line.points)}"


def _markup(svg: ET.Element) -> Markup:
    # ElementTree escapes all text and attributes.
    return Markup(ET.tostring(svg, encoding="unicode"))
