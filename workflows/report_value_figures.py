"""The figures on whether values can be trusted: what V says, how it went, and what V must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.episode import Outcome
from value_model.calibration import ReliabilityBin
from value_model.gate_report import VALUES, AucCurve
from workflows.report_theme import (
    BLUE,
    GREEN,
    GREY,
    HALF,
    INK,
    MUTED,
    ORANGE,
    VERMILLION,
    WIDE,
    Picture,
    styled,
    to_picture,
)
from workflows.report_words import number

_HEIGHT = 3.6
_RIVAL_NAMES = {"time only": "know the clock only", "outcome only": "know the chance of success only"}
_RIVAL_STYLES = ((GREY, "--"), (ORANGE, ":"), (GREEN, "-."))
# A band over fewer episodes than this would be drawn from single ones.
_FEWEST_IN_BAND = 4
_BAND_BINS = 24


def reliability_figure(bins: Sequence[ReliabilityBin], error: float | None = None) -> Picture:
    """Mean return against mean value per tenth of [−1, 0]; on the diagonal, values mean what they say."""
    with styled():
        figure = Figure((HALF, _HEIGHT), layout="constrained")
        axes = figure.subplots()
        axes.plot([-1, 0], [-1, 0], color=MUTED, linewidth=1, linestyle="--", label="perfect values")
        frames = np.array([b.frames for b in bins], float)
        x, y = [b.mean_value for b in bins], [b.mean_return for b in bins]
        axes.plot(x, y, color=BLUE, linewidth=1.6, label="these values")
        axes.scatter(x, y, s=24 + 160 * frames / frames.max(), color=BLUE, linewidths=0, zorder=3)
        axes.set_xlim(-1.05, 0.05)
        axes.set_ylim(-1.05, 0.05)
        axes.set_xlabel("value, as predicted")
        axes.set_ylabel("return, as it turned out")
        axes.set_title("Do values mean what they say?")
        if error is not None:
            _note(axes, f"off by {number(error, 3)} on average", (0.97, 0.05), "right")
        axes.grid()
        axes.legend(loc="upper left")
        alt = "; ".join(f"value {b.mean_value:.2f}: return {b.mean_return:.2f}" for b in bins)
        return to_picture(figure, alt)


def auc_figure(parts: Sequence[float], curves: Sequence[AucCurve]) -> Picture:
    """How well V and its rivals tell successes from failures, over episode time, compared in both ways."""
    with styled():
        figure = Figure((WIDE, _HEIGHT), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        x = 100 * np.asarray(parts)
        for axes, attribute in ((left, "same_age"), (right, "own_length")):
            axes.axhline(0.5, color=MUTED, linewidth=1)
            styles = iter(_RIVAL_STYLES * len(curves))
            for curve in curves:
                y = np.array([np.nan if a is None else a for a in getattr(curve, attribute)], float)
                own = curve.name == VALUES
                colour, line = (BLUE, "-") if own else next(styles)
                name = "these values" if own else _RIVAL_NAMES.get(curve.name, curve.name)
                axes.plot(x, y, color=colour, linestyle=line, linewidth=2.6 if own else 1.6, label=name)
            axes.set_ylim(-0.03, 1.03)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "guessing  50", "75", "100"])
            axes.grid(axis="y")
        left.set_title("Success or failure? Compared at the same age")
        left.set_xlabel("age, % of the task's median success")
        left.set_ylabel("pairs ordered rightly, of 100")
        right.set_title("Compared at the same part of each one's own length")
        right.set_xlabel("part of the episode that is over, %")
        left.legend(loc="lower left")
        alt = "; ".join(f"{c.name}: {_points(parts, c.same_age)} at equal age" for c in curves)
        return to_picture(figure, alt)


def over_time_figure(frames: pd.DataFrame, rates: Mapping[str, float]) -> Picture | None:
    """V over time, successes against failures: medians and the middle half. ``None`` without both."""
    known = _with_seconds(frames, rates)
    with styled():
        figure = Figure((HALF, _HEIGHT), layout="constrained")
        axes = figure.subplots()
        told = []
        for outcome, colour, line in ((Outcome.SUCCESS, GREEN, "-"), (Outcome.FAILURE, VERMILLION, "--")):
            band = _band(known[known["outcome"] == outcome], "seconds")
            if band is None:
                return None
            name = {Outcome.SUCCESS: "successes", Outcome.FAILURE: "failures"}[outcome]
            _draw_band(axes, band, colour, line, name)
            told.append(f"{outcome.value}: {band[1][0]:.2f} at first, {band[1][-1]:.2f} in the end")
        axes.set_xlabel("seconds since the start")
        axes.set_ylabel("value")
        axes.set_ylim(-1.03, 0.03)
        axes.set_title("When do values see how it will end?")
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        # Below, where no line runs through the names, wherever and whenever the lines end.
        figure.legend(loc="outside lower center", ncols=2)
        return to_picture(figure, "; ".join(told))


def progress_figure(
    frames: pd.DataFrame, rates: Mapping[str, float], rank_correlation: float | None
) -> Picture | None:
    """V against the time that is left, in successes: median, middle half. ``None`` without enough of them."""
    known = _with_seconds(frames, rates)
    won = known[known["outcome"] == Outcome.SUCCESS]
    last = won.groupby("episode_id")["seconds"].transform("max")
    band = _band(won.assign(left=last - won["seconds"]), "left")
    if band is None:
        return None
    with styled():
        figure = Figure((HALF, _HEIGHT), layout="constrained")
        axes = figure.subplots()
        _draw_band(axes, band, BLUE, "-", "median, and the middle half")
        axes.invert_xaxis()
        axes.set_ylim(-1.03, 0.03)
        axes.set_xlabel("seconds left to success")
        axes.set_ylabel("value")
        axes.set_title("Do values rise as success comes near?")
        if rank_correlation is not None:
            words = f"rank correlation {number(rank_correlation, 2)} (1: always, 0: no relation)"
            _note(axes, words, (0.97, 0.05), "right")
        axes.grid(axis="y")
        axes.legend(loc="upper left")
        alt = (
            f"{band[1][-1]:.2f} at {band[0][-1]:.1f} s before success, {band[1][0]:.2f} at {band[0][0]:.1f} s"
        )
        return to_picture(figure, alt)


def _with_seconds(frames: pd.DataFrame, rates: Mapping[str, float]) -> pd.DataFrame:
    """The frames of known outcome, and when each was: in seconds, or in frames of an unknown rate."""
    known = frames[frames["outcome"].notna()]
    rate = known["episode_id"].map(pd.Series(dict(rates), dtype=float)).fillna(1.0)
    return known.assign(seconds=known["frame"] / rate)


def _band(frames: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """x, median, lower and upper quartile of ``value``, over equal steps of ``column``."""
    if frames.empty:
        return None
    # Beyond the 95th percentile only the odd long episode is left.
    edges = np.linspace(0, max(1e-6, float(frames[column].quantile(0.95))), _BAND_BINS + 1)
    which = np.digitize(frames[column], edges[1:-1])
    within = frames[column].to_numpy() <= edges[-1]
    groups = frames[within].groupby(which[within])
    shown = (
        groups["value"]
        .quantile([0.25, 0.5, 0.75])
        .unstack()[groups["episode_id"].nunique() >= _FEWEST_IN_BAND]
    )
    if shown.empty:
        return None
    x = groups[column].mean().loc[shown.index].to_numpy(float)
    return x, shown[0.5].to_numpy(float), shown[0.25].to_numpy(float), shown[0.75].to_numpy(float)


def _draw_band(
    axes: Axes,
    band: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    colour: str,
    line: str,
    label: str,
) -> None:
    x, median, low, high = band
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, median, color=colour, linestyle=line, linewidth=2.2, label=label)


def _note(axes: Axes, words: str, place: tuple[float, float], side: str) -> None:
    axes.text(*place, words, transform=axes.transAxes, ha=side, fontweight="bold", color=INK)


def _points(parts: Sequence[float], values: Sequence[float | None]) -> str:
    shown = [
        f"{value:.2f} at {part:.0%}"
        for part, value in zip(parts, values, strict=True)
        if value is not None and part in (0.25, 0.5, 0.75)
    ]
    return ", ".join(shown)
