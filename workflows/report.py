"""One self-contained HTML page per iteration: what improved, why, and where each number came from.

Reads: what :class:`ReportData` holds, and the camera frames of at most three episodes. Writes one
file, atomically; it names no other file or address, so it can be mailed or archived. The same data
makes the same bytes. When an episode's recording is not at hand its value is shown without frames.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from value_model.calibration import ValueQuality
from value_model.gate_report import GateReport
from workflows import report_figures as figures
from workflows import report_tables as tables
from workflows.comparison import PairedDifference, Performance
from workflows.report_came_in import CameIn, group_tables, label_lines, rollout_lines
from workflows.report_decision import guards_table, looks_table, task_rows
from workflows.report_episodes import choose_episodes, episode_pictures
from workflows.report_page import write_page
from workflows.report_values import value_section
from workflows.report_words import duration, guard_that_holds, headline, number, tiles

__all__ = [
    "FRAME_COLUMNS",
    "ReportData",
    "StepOrigin",
    "ValuesData",
    "choose_episodes",
    "write_report",
    "write_values_page",
]

TEMPLATE = "report_template.html"
VALUES_TEMPLATE = "values_template.html"
FRAME_COLUMNS = (
    "episode_id",
    "task",
    "operator",
    "outcome",
    "frame",
    "source",
    "value",
    "advantage",
    "return_",
    "indicator",
    "reason",
)


@dataclass(frozen=True)
class StepOrigin:
    """The step that made something: its name, key, folder (relative to the workspace) and seconds."""

    name: str
    key: str
    path: str
    seconds: float


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    performances: by policy, in the order of the figures. differences: by ``"<candidate> vs <other>"``.
    frames: one row per frame with :data:`FRAME_COLUMNS` (``source`` is ``pipeline.episode.Source``,
    ``indicator`` a code of ``pipeline.prompts``, ``reason`` a ``value_model.advantages.Reason`` or
    text; ``outcome``, ``advantage`` and ``return_`` are missing where nobody labelled the episode).
    thresholds: per task. value_quality: the JSON of ``value_model.calibration.ValueQuality``, or empty.
    training_curves: (step, loss) by policy. episodes: all episodes in ``frames``. origins: by
    ``"performance"``, ``"advantages"``, ``"values"``, ``"training"``, ``"value training"``, ``"data"``,
    ``"film"``. film: a GIF.
    annotators: how many episodes each person labelled. film_caption: how the film's starts were chosen.
    gate: its report on the values, or ``None`` where the step is older than the gate. values_note: why the
    turn went on where that report alone does not say so. rule, looks, guards: of the decision, as in
    ``workflows.report_graph.Decision``. by_task: performances by task, then policy. value_curves: (step,
    loss) of the value models by what it is of. came_in: what is new, or ``None`` where nobody asked.
    """

    iteration: int
    title: str
    robot: str
    tasks: tuple[str, ...]
    performances: dict[str, Performance]
    candidate: str
    reference: str
    differences: dict[str, PairedDifference]
    promoted: bool
    decision: str
    frames: pd.DataFrame
    thresholds: dict[str, float]
    value_quality: dict[str, Any]
    training_curves: dict[str, list[tuple[int, float]]]
    episodes: list[EpisodeEntry]
    origins: dict[str, list[StepOrigin]]
    steps: list[StepOrigin]
    peak_memory_gib: float | None = None
    wall_seconds: float | None = None
    film: Path | None = None
    annotators: dict[str, int] = field(default_factory=dict)
    film_caption: str = ""
    gate: GateReport | None = None
    values_note: str = ""
    rule: str = ""
    looks: tuple[Mapping[str, Any], ...] = ()
    guards: tuple[Mapping[str, Any], ...] = ()
    by_task: dict[str, dict[str, Performance]] = field(default_factory=dict)
    value_curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    came_in: CameIn | None = None

    def __post_init__(self) -> None:
        """Raises ``InputError`` when a policy or a column of the frames is missing."""
        for name in (self.candidate, self.reference):
            if name not in self.performances:
                raise InputError(
                    f"the report compares {name!r}, which was not evaluated: {list(self.performances)}"
                )
        missing = [c for c in FRAME_COLUMNS if c not in self.frames.columns]
        if missing:
            raise InputError(f"the report's frames lack the columns {missing}")


def write_report(data: ReportData, out: Path) -> Path:
    """Writes the page to ``out`` atomically and returns it. Raises ``InputError`` for unusable data."""
    return write_page(TEMPLATE, _context(data), out)


@dataclass(frozen=True)
class ValuesData:
    """Everything on the page about values alone; fields as in :class:`ReportData`."""

    iteration: int
    title: str
    robot: str
    tasks: tuple[str, ...]
    note: str
    frames: pd.DataFrame
    value_quality: dict[str, Any]
    episodes: list[EpisodeEntry]
    origins: dict[str, list[StepOrigin]]
    gate: GateReport | None


def write_values_page(data: ValuesData, out: Path) -> Path:
    """Writes the page to ``out`` atomically and returns it."""
    rates = {entry.id: entry.info.rate_hz for entry in data.episodes}
    context = {
        "data": data,
        "values": value_section(data.frames, rates, data.gate, _quality(data.value_quality)),
        "episode_pictures": episode_pictures(data.frames, data.episodes),
    }
    return write_page(VALUES_TEMPLATE, context, out)


def _quality(document: dict[str, Any]) -> ValueQuality | None:
    return ValueQuality.from_document(document) if document else None


def _context(data: ReportData) -> dict[str, Any]:
    difference = data.differences.get(f"{data.candidate} vs {data.reference}")
    frames = data.frames
    rates = {entry.id: entry.info.rate_hz for entry in data.episodes}
    per_episode = tables.per_episode(frames)
    has_advantages = bool(np.isfinite(frames["advantage"].to_numpy(float)).any())
    curves = {label: curve for label, curve in data.training_curves.items() if curve}
    value_curves = {label: curve for label, curve in data.value_curves.items() if curve}
    new = data.came_in
    return {
        "data": data,
        # First: a film that cannot be read stops the report before anything is drawn.
        "film": _film(data.film),
        "headline": headline(
            data.performances,
            data.candidate,
            data.reference,
            difference,
            guard_that_holds(data.promoted, data.guards) if data.looks else None,
        ),
        "tiles": tiles(data.performances, data.candidate, data.reference, data.differences),
        "performance": figures.performance_figure(data.performances, data.candidate),
        "performance_rows": tables.performance_rows(data.performances),
        "difference_rows": tables.difference_rows(data.differences),
        "advantages": figures.advantage_figure(frames, data.thresholds) if has_advantages else None,
        "thresholds": {task: number(value, 3) for task, value in data.thresholds.items()},
        "hidden_tasks": max(0, frames["task"].nunique() - figures.MOST_TASKS_SHOWN),
        "share_rows": tables.share_rows(frames),
        "reason_rows": tables.reason_rows(frames),
        "episode_pictures": episode_pictures(frames, data.episodes),
        "values": value_section(frames, rates, data.gate, _quality(data.value_quality)),
        "training": figures.training_figure(curves) if curves else None,
        "value_training": figures.value_training_figure(value_curves) if value_curves else None,
        "looks": looks_table(data.looks),
        "guards": guards_table(data.guards),
        "task_rows": task_rows(data.by_task),
        "new_tables": group_tables(new) if new is not None and new.new_episodes else [],
        "new_lines": [*label_lines(new), *rollout_lines(new)] if new is not None else [],
        "episode_rows": tables.episode_rows(frames, rates),
        "episode_count": len(per_episode),
        "labelled_count": int(per_episode["outcome"].notna().sum()),
        "frame_count": len(frames),
        "number": number,
        "duration": duration,
    }


def _film(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return "data:image/gif;base64," + base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise InputError(f"the film {path} cannot be read: {error.strerror}") from error
