"""Charts as SVG: well-formed, inside their frame, linked, and safe whatever things are called."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.report_lines import HEIGHT, Frame, Layer, Line, Point, line_chart, stack_chart
from workflows.report_words import number

VALUE = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))
NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)


def places(svg: str, tag: str, *names: str) -> list[tuple[float, ...]]:
    """The numbers in these attributes of every such element."""
    root = ET.fromstring(svg)
    return [tuple(float(found.get(name) or "nan") for name in names) for found in root.iter(tag)]


@given(st.lists(VALUE, min_size=1, max_size=60), NAMES, st.booleans())
def test_every_dot_is_inside_and_higher_values_are_higher(
    values: list[float], name: str, joined: bool
) -> None:
    frame = Frame(tuple(range(3, 3 + len(values))), {4: "iteration-4.html"})
    points = tuple(Point(3 + k, value, value - 1, value + 1) for k, value in enumerate(values))
    svg = line_chart(frame, [Line(name, "s-base", points, joined)], lambda v: f"{v:.3g}", low=None)
    dots = places(svg, "circle", "cx", "cy")
    assert len(dots) == len(values)
    assert all(0 <= x <= frame.width and 0 <= y <= HEIGHT for x, y in dots)
    for k in range(1, len(values)):
        assert dots[k][0] > dots[k - 1][0]
        assert (dots[k][1] - dots[k - 1][1]) * (values[k] - values[k - 1]) <= 0
    assert ('href="iteration-4.html"' in svg) == (len(values) > 1)
    # Round numbers on the axis hold all whiskers between them.
    grid = [y for _, y in places(svg, "line", "x1", "y1")]
    assert min(grid) >= 0 and max(grid) <= HEIGHT
    assert 2 <= svg.count('class="grid"') <= 9


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_stacked_bars_add_up(amounts: list[tuple[int, int]]) -> None:
    frame = Frame(tuple(range(1, 1 + len(amounts))), {})
    layers = [
        Layer(name, f"s-{name}", {n: pair[k] for n, pair in zip(frame.iterations, amounts, strict=True)})
        for k, name in enumerate(("base", "other"))
    ]
    svg = stack_chart(frame, layers, lambda v: f"{v:g}")
    found = places(svg, "rect", "y", "height")
    assert len(found) == sum(amount > 0 for pair in amounts for amount in pair)
    unit = [
        height / amount
        for (_, height), amount in zip(found, (a for p in amounts for a in p if a), strict=True)
    ]
    if unit:
        assert max(unit) - min(unit) < 0.11
    assert all(y >= 0 and y + height <= HEIGHT for y, height in found)


def test_names_and_reasons_are_text_only() -> None:
    hostile = "</svg><script>alert(1)</script>\"'&"
    frame = Frame((1, 2), {}, ((1, hostile),))
    svg = line_chart(frame, [Line(hostile, "s-base", (Point(1, 0.5), Point(2, 0.7)))], str, high=1.0)
    assert "<script" not in svg
    said = [element.text or "" for element in ET.fromstring(svg).iter("title")]
    assert hostile in said and any(hostile in text and "iteration 2" in text for text in said)
    assert re.search(r"stroke|event", svg)


@pytest.mark.parametrize("digits", [0, 1, 3])
@given(values=st.lists(st.floats(-2, 2).map(lambda value: round(value, 5)), min_size=1, max_size=5))
def test_no_two_numbers_of_an_axis_read_alike(values: list[float], digits: int) -> None:
    frame = Frame(tuple(range(1, 1 + len(values))), {})
    points = tuple(Point(1 + k, value) for k, value in enumerate(values))
    svg = line_chart(frame, [Line("x", "s-base", points)], partial(number, digits=digits), low=None)
    found = ET.fromstring(svg)
    axis = [text.text for text in found.iter("text") if text.get("text-anchor") == "end"][:-1]
    assert len(axis) == len(set(axis)) >= 2


def test_where_all_is_zero_the_line_lies_on_the_axis() -> None:
    points = (Point(1, 0.0, 0.0, 0.0), Point(2, 0.0))
    svg = line_chart(Frame((1, 2), {}), [Line("x", "s-base", points)], number)
    grid = [y for (y,) in places(svg, "line", "y1")]
    assert [y for (y,) in places(svg, "circle", "cy")] == [max(grid)] * 2
    assert re.findall(r">(\d)</text>", svg)[:2] == ["0", "1"]


def test_equal_values_and_nothing_at_all() -> None:
    frame = Frame((1,), {})
    assert "<circle" in line_chart(frame, [Line("x", "s-base", (Point(1, 0.0),))], str, low=0.0)
    with pytest.raises(ValueError, match="nothing"):
        line_chart(frame, [Line("x", "s-base", ())], str)
