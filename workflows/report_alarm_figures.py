"""The figures of the gate's alarms: shares of positives, and what else might give the outcome away."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.episode import Source
from value_model.gate_report import VALUES, Evidence
from workflows.report_theme import (
    BLUE,
    GREY,
    HALF,
    INK,
    MUTED,
    SOURCE_COLOURS,
    SOURCE_WORDS,
    VERMILLION,
    Picture,
    styled,
    to_picture,
)
from workflows.report_words import percent

_MOST_ROWS = 8
_NAME_WIDTH = 19


def shares_figure(shares: Mapping[str, Mapping[str, float]], asked: float | None) -> Picture | None:
    """Positives among the marked frames, a bar per task and source; ``None`` where there is no mark."""
    rows = [(task, name, share) for task, found in shares.items() for name, share in found.items()]
    if not rows:
        return None
    hidden, rows = max(0, len(rows) - 3 * _MOST_ROWS), rows[: 3 * _MOST_ROWS]
    with styled():
        figure = Figure((HALF, max(3.6, 1.3 + 0.34 * len(rows))), layout="constrained")
        axes = figure.subplots()
        for row, (_, name, share) in enumerate(rows):
            axes.barh(row, share, height=0.6, color=SOURCE_COLOURS[Source[name.upper()]])
            axes.text(1.2, row, percent(share), va="center", ha="right")
        if asked is not None:
            axes.axvline(asked, color=INK, linestyle="--", linewidth=1.3)
        tasks = [task if i == 0 or rows[i - 1][0] != task else "" for i, (task, _, _) in enumerate(rows)]
        axes.set_yticks(range(len(rows)), [textwrap.fill(task, _NAME_WIDTH) for task in tasks])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.22)
        axes.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
        axes.set_title("How much is marked positive?")
        axes.set_xlabel("of that source's marked frames" + (f" ({hidden} rows not shown)" if hidden else ""))
        present = [s for s in Source if any(name == s.name.lower() for _, name, _ in rows)]
        handles: list[Patch | Line2D] = [
            Patch(color=SOURCE_COLOURS[s], label=SOURCE_WORDS[s]) for s in present
        ]
        if asked is not None:
            words = f"asked for: {percent(asked)} of a task"
            handles.append(Line2D([], [], color=INK, linestyle="--", label=words))
        figure.legend(
            handles=handles, loc="outside lower left", ncols=1 if len(handles) < 3 else 2, fontsize=9
        )
        return to_picture(figure, "; ".join(f"{t}, {n}: {percent(s)}" for t, n, s in rows))


def first_frame_figure(evidence: Evidence, bound: float | None) -> Picture | None:
    """What a first frame tells: a plain classifier per task, and the first values. ``None`` where unknown."""
    rows: list[tuple[str, float, float | None]] = [
        (f"picture of {p.task!r}", p.auc, p.chance) for p in evidence.probes[:_MOST_ROWS]
    ]
    first = next((c.same_age[0] for c in evidence.curves if c.name == VALUES), None)
    if first is not None:
        rows.append(("values of the first frame", first, None))
    if not rows:
        return None
    with styled():
        figure = Figure((HALF, max(2.4, 1.5 + 0.55 * len(rows))), layout="constrained")
        axes = figure.subplots()
        for row, (_, auc, chance) in enumerate(rows):
            if chance is not None:
                axes.barh(row, chance - 0.5, left=0.5, height=0.5, color=GREY, alpha=0.3)
            axes.plot([0.5, auc], [row, row], color=BLUE, linewidth=2)
            axes.scatter([auc], [row], s=70, color=BLUE, zorder=3)
            _beside(axes, auc, row)
        _frame(axes, [name for name, _, _ in rows], bound, "gives it away")
        axes.set_title("Known before anything happens?")
        legend = [Patch(color=GREY, alpha=0.3, label="what luck gives")]
        axes.legend(handles=legend, loc="lower right", fontsize=9)
        return to_picture(figure, "; ".join(f"{name}: {auc:.2f}" for name, auc, _ in rows))


def within_figure(evidence: Evidence) -> Picture | None:
    """How values tell success from failure, over all pairs and within one person, day or policy."""
    words = {"operator": "within one operator", "day": "within one day", "policy": "within one policy"}
    found = [a for a in evidence.associations if a.auc_all is not None]
    if not found:
        return None
    rows = [(words[a.factor], a.auc_within) for a in found]
    rows.insert(0, ("all episodes", found[0].auc_all))
    with styled():
        figure = Figure((HALF, max(2.4, 1.5 + 0.55 * len(rows))), layout="constrained")
        axes = figure.subplots()
        for row, (_, auc) in enumerate(rows):
            if auc is None:
                axes.annotate("no success and failure to compare", (0.51, row), va="center", color=MUTED)
                continue
            colour = BLUE if row else INK
            axes.plot([0.5, auc], [row, row], color=colour, linewidth=2)
            axes.scatter([auc], [row], s=70, color=colour, zorder=3)
            _beside(axes, auc, row)
        _frame(axes, [name for name, _ in rows], None, "")
        axes.set_title("The work, or only who and when?")
        alt = "; ".join(f"{name}: {'unknown' if auc is None else f'{auc:.2f}'}" for name, auc in rows)
        return to_picture(figure, alt)


def _beside(axes: Axes, auc: float, row: int) -> None:
    side = 1 if auc >= 0.5 else -1
    axes.annotate(
        f"{100 * auc:.0f}",
        (auc, row),
        xytext=(9 * side, 0),
        textcoords="offset points",
        va="center",
        ha="left" if side > 0 else "right",
        fontweight="bold",
    )


def _frame(axes: Axes, names: list[str], bound: float | None, beyond: str) -> None:
    axes.axvline(0.5, color=MUTED, linewidth=1)
    if bound is not None:
        axes.axvspan(bound, 1.06, color=VERMILLION, alpha=0.15, linewidth=0)
        axes.annotate(
            beyond, (bound, -0.62), xytext=(3, 0), textcoords="offset points", color=VERMILLION, fontsize=9
        )
    axes.set_yticks(range(len(names)), [textwrap.fill(name, _NAME_WIDTH) for name in names])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(names) - 0.4, -0.75)
    axes.set_xlim(0.3, 1.06)
    axes.set_xticks(np.array([0.5, 0.75, 1.0]), ["50\nguessing", "75", "100"])
    axes.set_xlabel("pairs of a success and a failure ordered rightly, of 100")
    axes.grid(axis="x")
