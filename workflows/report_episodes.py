"""Three typical episodes for the report: which they are, and their films over their values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.episode import Outcome, Source
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.prompts import NEGATIVE, POSITIVE
from workflows.report_films import fit_height
from workflows.report_tables import per_episode
from workflows.report_theme import (
    BLUE,
    GRID,
    INK,
    MUTED,
    SOURCE_COLOURS,
    SOURCE_WORDS,
    VERMILLION,
    WIDE,
    Picture,
    bare,
    styled,
    to_picture,
)
from workflows.report_words import number

STRIP_FRAMES = 8
_STRIP_CAMERA = "table"
_THUMBNAIL_HEIGHT = 128
_TITLES = {"success": "A success", "failure": "A failure", "corrected": "An attempt that a person corrected"}


@dataclass(frozen=True)
class EpisodePicture:
    """The figure of one episode, or the reason why there is none."""

    title: str
    about: str
    picture: Picture | None


def choose_episodes(frames: pd.DataFrame) -> dict[str, str]:
    """The most typical episode of each kind: ``success``, ``failure``, ``corrected`` to an episode id.

    Typical is nearest to the median length and mean value of its kind. Successes and failures are
    uncorrected, and the policy's own where it has any; corrected ones were saved where possible.
    Ties go to the smaller id; a kind without an episode is left out.
    """
    episodes = per_episode(frames)
    corrected = episodes[episodes["by_correction"] > 0]
    alone = episodes[episodes["by_correction"] == 0]
    by_policy = episodes["by_policy"] > 0
    saved = episodes["outcome"] == Outcome.SUCCESS
    kinds = {
        "success": _prefer(alone[alone["outcome"] == Outcome.SUCCESS], by_policy),
        "failure": _prefer(alone[alone["outcome"] == Outcome.FAILURE], by_policy),
        "corrected": _prefer(_prefer(corrected, by_policy), saved),
    }
    return {kind: _most_typical(group) for kind, group in kinds.items() if len(group)}


def _prefer(group: pd.DataFrame, wanted: pd.Series) -> pd.DataFrame:
    """Those of ``group`` that are ``wanted``, or all of it when none is."""
    chosen = group[wanted.loc[group.index]]
    return chosen if len(chosen) else group


def _most_typical(group: pd.DataFrame) -> str:
    distance = np.zeros(len(group))
    for column in ("frames", "value", "by_correction"):
        values = group[column].to_numpy(float)
        spread = float(np.nanstd(values))
        if spread > 0:
            distance += np.abs(values - np.nanmedian(values)) / spread
    return str(group.index[int(np.argmin(np.where(np.isnan(distance), np.inf, distance)))])


def episode_pictures(all_frames: pd.DataFrame, episodes: Sequence[EpisodeEntry]) -> list[EpisodePicture]:
    """The three typical episodes of ``all_frames``; camera frames are read from those in ``episodes``."""
    chosen = choose_episodes(all_frames)
    entries = {entry.id: entry for entry in episodes}
    pictures = []
    for kind, title in _TITLES.items():
        if kind not in chosen:
            pictures.append(EpisodePicture(title, "There is none in this data.", None))
            continue
        episode = chosen[kind]
        frames = all_frames[all_frames["episode_id"] == episode].sort_values("frame")
        entry = entries.get(episode)
        rate = entry.info.rate_hz if entry else 1.0
        images = _strip_images(entry, len(frames))
        first = frames.iloc[0]
        about = [
            first["task"],
            f"{number(len(frames) / rate, 1)} s",
            f"operator {first['operator']}",
            episode,
        ]
        if not images:
            about.append("its recording is not at hand: no frames")
        if kind != "corrected":
            by_policy = (frames["source"] == Source.POLICY).any()
            about.insert(0, "the policy drove" if by_policy else "a person drove")
        pictures.append(EpisodePicture(title, " · ".join(about), episode_figure(frames, rate, images)))
    return pictures


def _strip_images(entry: EpisodeEntry | None, length: int) -> list[np.ndarray]:
    if entry is None or not entry.path.exists() or not entry.info.cameras:
        return []
    camera = _STRIP_CAMERA if _STRIP_CAMERA in entry.info.cameras else entry.info.cameras[0]
    with EpisodeReader(entry.path) as reader:
        last = len(reader) - 1
        return [reader.image(camera, min(i, last)) for i in strip_indices(length)]


def episode_figure(frames: pd.DataFrame, rate_hz: float, images: Sequence[np.ndarray]) -> Picture:
    """One episode: a film strip over its value, who drove as the background, and each frame's mark.

    ``frames`` are the episode's rows in order; ``images`` are ``STRIP_FRAMES`` H×W×3 uint8 frames taken
    at :func:`strip_indices` (or none, and the strip is left out).
    """
    seconds = len(frames) / rate_hz
    times = (np.arange(len(frames)) + 0.5) / rate_hz
    # To the right of the axis is room for the half of its last number.
    left, right = 0.7, 0.25
    # The strip spans the time axis exactly, so that each frame stands above its own moment.
    width = (WIDE - left - right) / STRIP_FRAMES
    aspect = images[0].shape[0] / images[0].shape[1] if images else 0.0
    heights = {"strip": width * aspect, "curve": 1.9, "marks": 0.34}
    bottom, gap, top = 0.82, 0.07, 0.04
    total = bottom + sum(heights.values()) + 2 * gap + top
    with styled():
        figure = Figure((WIDE, total))
        panels = {}
        y = bottom
        for name in ("marks", "curve", "strip"):
            panels[name] = figure.add_axes(
                (left / WIDE, y / total, (WIDE - left - right) / WIDE, heights[name] / total)
            )
            panels[name].set_xlim(0, seconds)
            y += heights[name] + gap
        _strip(panels["strip"], images, seconds)
        _curve(panels["curve"], frames, times, rate_hz)
        _marks(panels["marks"], frames["indicator"].to_numpy(), rate_hz)
        _episode_legend(figure, frames)
        alt = f"Camera frames, value and marks over time of episode {frames['episode_id'].iloc[0]}"
        return to_picture(figure, alt)


def strip_indices(length: int) -> list[int]:
    """The frames in the middle of each of ``STRIP_FRAMES`` equal parts of an episode."""
    return [int((i + 0.5) * length / STRIP_FRAMES) for i in range(STRIP_FRAMES)]


def _strip(axes: Axes, images: Sequence[np.ndarray], seconds: float) -> None:
    each = seconds / STRIP_FRAMES
    for i, image in enumerate(images):
        small = fit_height(image, min(image.shape[0], _THUMBNAIL_HEIGHT))
        extent = (i * each + 0.02 * each, (i + 1) * each - 0.02 * each, 0, 1)
        axes.imshow(small, extent=extent, aspect="auto", interpolation="none")
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, 1)
    bare(axes)


def runs(values: np.ndarray) -> list[tuple[int, int, int]]:
    """Stretches of equal values: ``(first, one past last, value)``."""
    cuts = np.flatnonzero(np.diff(values)) + 1
    bounds = [0, *cuts.tolist(), len(values)]
    return [(a, b, int(values[a])) for a, b in pairwise(bounds) if b > a]


def _curve(axes: Axes, frames: pd.DataFrame, times: np.ndarray, rate_hz: float) -> None:
    for first, end, source in runs(frames["source"].to_numpy()):
        alpha = 0.16 if source == Source.POLICY else 0.26
        colour = SOURCE_COLOURS[Source(source)]
        axes.axvspan(first / rate_hz, end / rate_hz, color=colour, alpha=alpha, linewidth=0)
    axes.plot(times, frames["return_"], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.3)
    axes.plot(times, frames["value"], color=INK, linewidth=2.2)
    axes.set_ylim(-1.04, 0.04)
    axes.set_yticks([-1, -0.5, 0], ["−1", "−0.5", "0"])
    axes.set_ylabel("value")
    axes.grid(axis="y")
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.spines["bottom"].set_visible(False)


def _marks(axes: Axes, indicators: np.ndarray, rate_hz: float) -> None:
    # Two lanes, so that the marks can be told apart without their colours.
    for lane, mark, colour in ((0.53, POSITIVE, BLUE), (0.03, NEGATIVE, VERMILLION)):
        spans = [(a / rate_hz, (b - a) / rate_hz) for a, b, m in runs(indicators) if m == mark]
        axes.broken_barh(spans, (lane, 0.44), color=colour, linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.75, 0.25], ["+", "−"])
    axes.tick_params(axis="y", length=0, labelsize=12)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.set_xlabel("seconds since the episode began", labelpad=2)


def _episode_legend(figure: Figure, frames: pd.DataFrame) -> None:
    drivers = [s for s in Source if (frames["source"] == s).any()]
    handles: list[Patch | Line2D] = [Line2D([], [], color=INK, linewidth=2.2, label="value, as predicted")]
    if np.isfinite(frames["return_"].to_numpy(float)).any():
        dashed = (0, (4, 3))
        handles.append(Line2D([], [], color=MUTED, linestyle=dashed, label="return, as it turned out"))
    handles += [
        Patch(color=SOURCE_COLOURS[s], alpha=0.35, linewidth=0, label=SOURCE_WORDS[s]) for s in drivers
    ]
    handles += [
        Patch(color=colour, linewidth=0, label=f"marked {word}")
        for mark, colour, word in ((POSITIVE, BLUE, "positive"), (NEGATIVE, VERMILLION, "negative"))
        if (frames["indicator"] == mark).any()
    ]
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), columnspacing=1.6, handlelength=1.4
    )
