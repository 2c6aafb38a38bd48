"""The report's figures, each drawn from plain data and returned as a picture for the page.

Only matplotlib's object-oriented interface is used: no figure is kept, no global state is left behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.episode import Source
from workflows.comparison import Estimate, Performance
from workflows.report_theme import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    HALF,
    INK,
    ORANGE,
    SOURCE_COLOURS,
    SOURCE_WORDS,
    WIDE,
    Picture,
    policy_colours,
    styled,
    to_picture,
)
from workflows.report_words import number, percent, rate_digits

MOST_TASKS_SHOWN = 8
_HISTOGRAM_BINS = 32


def performance_figure(performances: Mapping[str, Performance], candidate: str) -> Picture:
    """Success rate and successes per hour of every policy side by side, with 95 % intervals."""
    names = list(performances)
    with styled():
        figure = Figure((WIDE, 0.75 + 0.52 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, names, [p.success_rate for p in performances.values()], percent)
        left.set_title("Success rate", pad=10)
        # The widest text stands to the right of the highest interval.
        left.set_xlim(0, 1.16)
        left.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        rates = [p.successes_per_hour for p in performances.values()]
        _bars(right, names, rates, lambda v: number(v, rate_digits(v)))
        right.set_title("Successes per robot hour", pad=10)
        # Where no policy ever succeeded, an axis of millionths would be drawn.
        right.set_xlim(0, (max(r.high for r in rates) or 1.0) * 1.16)
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        for label in left.get_yticklabels():
            label.set_color(INK)
            label.set_fontsize(11)
            label.set_fontweight("bold" if label.get_text() == candidate else "normal")
        alt = "; ".join(
            f"{name}: {percent(p.success_rate.value)} success, {number(p.successes_per_hour.value)} per hour"
            for name, p in performances.items()
        )
        return to_picture(figure, alt)


def _bars(axes: Axes, names: list[str], estimates: list[Estimate], text: Callable[[float], str]) -> None:
    colours = policy_colours(names)
    for row, (name, estimate) in enumerate(zip(names, estimates, strict=True)):
        # Hatched: the same network as another bar, only asked for something else.
        asked = ", asked" in name
        axes.barh(
            row,
            estimate.value,
            height=0.56,
            facecolor="none" if asked else colours[name],
            edgecolor=colours[name] if asked else "none",
            hatch="////" if asked else None,
        )
        axes.plot([estimate.low, estimate.high], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
        for end in (estimate.low, estimate.high):
            axes.plot([end, end], [row - 0.11, row + 0.11], color=INK, linewidth=1.6)
        axes.annotate(
            text(estimate.value),
            (estimate.high, row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=12,
            fontweight="bold",
        )
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_color(GRID)
    axes.tick_params(length=0)


def advantage_figure(frames: pd.DataFrame, thresholds: Mapping[str, float]) -> Picture:
    """One histogram per task: advantages by who drove, and the threshold above which a frame is positive.

    Raises ``ValueError`` when no frame has an advantage.
    """
    known = frames[np.isfinite(frames["advantage"].to_numpy(float))]
    tasks = list(known["task"].value_counts().index[:MOST_TASKS_SHOWN])
    if not tasks:
        raise ValueError("no frame has an advantage")
    columns = min(2, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    low, high = np.percentile(known["advantage"], [0.5, 99.5])
    edges = np.linspace(low, max(high, low + 1e-3), _HISTOGRAM_BINS + 1)
    with styled():
        figure = Figure((WIDE, 0.6 + 2.5 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for axes, task in zip(grid.flat, sorted(tasks), strict=False):
            _advantage_panel(axes, known[known["task"] == task], task, thresholds.get(task), edges)
        for axes in grid.flat[len(tasks) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("advantage (right: better than usual)")
        drivers = [s for s in Source if (known["source"] == s).any()]
        handles = [Patch(color=SOURCE_COLOURS[s], alpha=0.75, label=SOURCE_WORDS[s]) for s in drivers]
        mark = Line2D(
            [], [], color=INK, linestyle="--", label="threshold: frames to its right are marked positive"
        )
        figure.legend(handles=[*handles, mark], loc="outside upper left", ncols=4)
        alt = "Histograms of the advantage per task, by who drove, with the threshold"
        return to_picture(figure, alt)


def _advantage_panel(
    axes: Axes, frames: pd.DataFrame, task: str, threshold: float | None, edges: np.ndarray
) -> None:
    for source in Source:
        advantages = frames.loc[frames["source"] == source, "advantage"].to_numpy(float)
        if not len(advantages):
            continue
        counts, _ = np.histogram(np.clip(advantages, edges[0], edges[-1]), edges)
        share = 100 * counts / len(advantages)
        axes.stairs(share, edges, fill=True, color=SOURCE_COLOURS[source], alpha=0.25)
        axes.stairs(share, edges, color=SOURCE_COLOURS[source], linewidth=1.8)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.3)
        axes.annotate(
            number(threshold, 3),
            (threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -10),
            textcoords="offset points",
            fontweight="bold",
        )
    axes.set_title(task)
    axes.set_ylabel("% of that source's frames")
    # Room above the bars for the threshold's number.
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
    axes.grid(axis="y")


def training_figure(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Picture:
    """Loss against step of every training, smoothed over the faint raw line."""
    colours = policy_colours(list(curves))
    with styled():
        figure = Figure((HALF, 3.6), layout="constrained")
        axes = figure.subplots()
        for label, curve in curves.items():
            steps, losses = np.asarray(curve, float).T
            window = max(1, len(losses) // 20)
            smooth = pd.Series(losses).rolling(window, center=True, min_periods=1).mean()
            if window > 1:
                axes.plot(steps, losses, color=colours[label], alpha=0.25, linewidth=1)
            axes.plot(steps, smooth, color=colours[label], linewidth=2, label=label)
        axes.set_xlabel("training step")
        axes.set_ylabel("loss")
        axes.set_title("Policies")
        axes.set_ylim(bottom=0)
        axes.grid()
        axes.legend()
        alt = "; ".join(f"{label}: loss {c[-1][1]:.3g} at step {c[-1][0]}" for label, c in curves.items())
        return to_picture(figure, alt)


def value_training_figure(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Picture:
    """Loss against step of the value models' training, the mean over them; by what the loss is of."""
    colours = dict(zip(curves, (BLUE, ORANGE, GREEN, GREY), strict=False))
    with styled():
        figure = Figure((HALF, 3.6), layout="constrained")
        axes = figure.subplots()
        for label, curve in curves.items():
            steps, losses = np.asarray(curve, float).T
            dots = "o" if len(curve) < 30 else ""
            axes.plot(
                steps, losses, dots, linestyle="-", color=colours.get(label, INK), linewidth=2, label=label
            )
        axes.set_xlabel("training step")
        axes.set_ylabel("loss")
        axes.set_title("Value models")
        axes.set_ylim(bottom=0)
        axes.grid()
        axes.legend()
        alt = "; ".join(f"{label}: loss {c[-1][1]:.3g} at step {c[-1][0]}" for label, c in curves.items())
        return to_picture(figure, alt)
