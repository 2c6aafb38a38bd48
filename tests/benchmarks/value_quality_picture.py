"""Values over time of one success, one wrong cube and one dropped cube, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.episode import Outcome
from pipeline.frame_table import FrameTable
from tests.benchmarks.value_quality_data import QualityData
from value_model.returns import frame_returns, task_scales

FILE_NAME = "value-quality.png"
STRIP_FRAMES = 6


def draw(out: Path, data: QualityData, values: np.ndarray, planted_values: np.ndarray) -> Path:
    """Writes the picture into ``out``; the drop is marked, and stills of the table camera are below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    returns = frame_returns(data.table, data.outcomes, task_scales(data.table, data.outcomes, 1.0))
    dropped = _dropped(data)
    chosen = [
        ("a success", data.table, _typical(data, values, won=True), values),
        ("the wrong cube", data.table, _typical(data, values, won=False), values),
        ("a dropped cube", data.planted, dropped, planted_values),
    ]
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(chosen), height_ratios=(3, 1))
    for column, (title, table, episode, scored) in enumerate(chosen):
        rows = table.frames_of(episode)
        axes, strip = grid[0, column], grid[1, column]
        seconds = np.arange(table.lengths[episode]) / table.rates[episode]
        axes.plot(seconds, scored[rows], label="value, out of fold", color="tab:blue")
        if table is data.table:
            axes.plot(seconds, returns[rows], ":", label="true return", color="tab:gray")
        elif (drop := data.drops.get(table.episode_ids[episode])) is not None:
            for frame, text, style in (
                (drop.let_go, "the hand opens", "--"),
                (drop.lost, "the cube is out", "-"),
            ):
                axes.axvline(frame / table.rates[episode], label=text, color="tab:red", linestyle=style)
        axes.set(title=f"{title}: {table.tasks[episode]}", ylim=(-1, 0.02), xlabel="s", ylabel="value")
        axes.legend(loc="lower left")
        strip.imshow(_stills(table, episode))
        strip.set_axis_off()
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE_NAME
    figure.savefig(path, dpi=110)
    return path


def _typical(data: QualityData, values: np.ndarray, won: bool) -> int:
    """An episode of the sloppy person whose values are, on average, the middle ones of its kind.

    Their failures are mixed-up colours, short of a few that ran out of time; those are left out.
    """
    outcome = Outcome.SUCCESS if won else Outcome.FAILURE
    longest = int(np.max(data.table.lengths))
    found = [
        i
        for i, (episode_id, person) in enumerate(zip(data.table.episode_ids, data.operators, strict=True))
        if person == "sloppy" and data.outcomes[episode_id] == outcome and data.table.lengths[i] < longest
    ]
    if not found:
        found = [i for i, e in enumerate(data.table.episode_ids) if data.outcomes[e] == outcome]
    means = [values[data.table.frames_of(i)].mean() for i in found]
    return found[int(np.argsort(means)[len(means) // 2])]


def _dropped(data: QualityData) -> int:
    """The longest planted episode whose cube was dropped and picked up again, or else any dropped one."""
    with_drop = [i for i, e in enumerate(data.planted.episode_ids) if e in data.drops]
    recovered = [i for i in with_drop if not data.drops[data.planted.episode_ids[i]].gave_up]
    return max(recovered or with_drop, key=lambda i: int(data.planted.lengths[i]))


def _stills(table: FrameTable, episode: int) -> np.ndarray:
    """Evenly spaced pictures of the first camera, side by side, ``(S, frames x S, 3)`` uint8."""
    rows = table.frames_of(episode)
    frames = np.linspace(rows.start, rows.stop - 1, STRIP_FRAMES).astype(np.int64)
    return np.concatenate(list(table.images(frames)[:, 0]), axis=1)
