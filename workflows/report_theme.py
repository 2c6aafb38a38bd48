"""Colours and typography of the report's figures, and how a figure becomes an SVG for light and dark pages.

The hues are Okabe & Ito's (2008), which people with any colour-vision deficiency can tell apart; what
matters is also told by position, shape or hatching.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pipeline.episode import Source

WIDE, HALF = 11.0, 5.4  # inches; a page column of 1100 px makes an inch 100 px

INK, MUTED, GRID = "#1f2328", "#646c76", "#dfe3e8"
BLUE, SKY, GREEN, ORANGE = "#0072b2", "#56b4e9", "#009e73", "#e69f00"
VERMILLION, PURPLE, GREY = "#d55e00", "#cc79a7", "#8b949e"

# The same figure on a dark page: every colour not named here stays.
DARK = {
    INK: "#e8eaed",
    MUTED: "#a3acb7",
    GRID: "#3a4149",
    BLUE: "#4fb0ee",
    GREEN: "#2cc497",
    VERMILLION: "#f0803c",
}

SOURCE_COLOURS = {Source.TELEOP: GREEN, Source.POLICY: SKY, Source.INTERVENTION: ORANGE}
SOURCE_WORDS = {
    Source.TELEOP: "person drove (teleoperation)",
    Source.POLICY: "policy drove",
    Source.INTERVENTION: "person corrected",
}
POLICY_COLOURS = {"base": GREY, "filtered BC": PURPLE, "RECAP": BLUE, "RECAP, asked for negative": VERMILLION}
OTHER_COLOURS = (GREEN, ORANGE, SKY)

_FONTS = "font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Picture:
    """A figure for the page: its data URI, and what it says in words for those who cannot see it."""

    uri: str
    alt: str


@contextmanager
def styled() -> Iterator[None]:
    """Everything drawn inside has the report's style."""
    with matplotlib.rc_context(
        {
            "axes.axisbelow": True,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": MUTED,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlecolor": INK,
            "font.family": "sans-serif",
            "font.size": 10,
            "grid.color": GRID,
            "hatch.linewidth": 0.6,
            "legend.frameon": False,
            "legend.labelcolor": INK,
            "svg.fonttype": "none",
            # Ids inside the SVG are hashed with this: the same data makes the same bytes.
            "svg.hashsalt": "kinova-recap",
            "text.color": INK,
            # A task or an operator may be called "$x$".
            "text.parse_math": False,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.major.size": 3,
            "ytick.major.size": 3,
        }
    ):
        yield


def policy_colours(names: list[str]) -> dict[str, str]:
    """A colour per policy, the same in every figure."""
    others = [name for name in names if name not in POLICY_COLOURS]
    fallback = {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(others)}
    return {name: POLICY_COLOURS.get(name, fallback.get(name, GREY)) for name in names}


def bare(axes: Axes) -> None:
    """Removes an axes' frame and ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def to_picture(figure: Figure, alt: str) -> Picture:
    """The figure as an SVG data URI; in an ``img`` it runs no script and shares no id with the page."""
    return Picture("data:image/svg+xml;base64," + base64.b64encode(to_svg(figure).encode()).decode(), alt)


def to_svg(figure: Figure) -> str:
    """The figure as stand-alone SVG text whose colours follow the reader's light or dark setting."""
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    FigureCanvasSVG(figure)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", _FONTS, svg)
    # Browsers then smooth the camera frames that they enlarge.
    svg = svg.replace("image-rendering:crisp-edges;image-rendering:pixelated", "")
    for colour in DARK:
        svg = svg.replace(f": {colour}", f": var(--c{colour[1:]}, {colour})")
    dark = "".join(f"--c{light[1:]}:{colour};" for light, colour in DARK.items())
    style = f"<style>@media (prefers-color-scheme: dark){{:root{{{dark}}}}}</style>"
    return svg.replace("<defs>", f"{style}<defs>", 1)
