"""Gathers what an iteration's steps left behind and writes its report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.counted_words import counted
from pipeline.label_snapshot import SnapshotRow, read_snapshot
from pipeline.workspace import Workspace
from value_model.advantages import Reason
from value_model.training_curves import CURVES_NAME, read_curves
from workflows.comparison import Attempt, Performance, performance
from workflows.evaluation import read_attempts
from workflows.promotion import compared
from workflows.report import (
    FRAME_COLUMNS,
    ReportData,
    StepOrigin,
    ValuesData,
    write_report,
    write_values_page,
)
from workflows.report_came_in import came_in
from workflows.report_graph import Decision
from workflows.step_files import (
    CHECKPOINT,
    FILM_FILE,
    QUALITY_FILE,
    REPORT_FILE,
    THRESHOLDS_FILE,
    TRAINING_FILE,
)
from workflows.step_result import MANIFEST
from workflows.value_gate import read_gate
from workflows.value_steps import checkpoint_of, episode_columns

_LOSSES = "loss/"
_NOT_TRAINED = (
    "Nothing was fine-tuned on them, and the champion stays. Mend what is marked below and run recap improve "
    "again, or answer for them with --accept-values."
)


def write_iteration_report(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    evaluations: list[Path],
    evaluation_names: list[str],
    trainings: list[Path],
    training_names: list[str],
    advantages: Path,
    gate: Path,
    scores: Path,
    members: list[Path],
    dataset: Path,
    film: Path,
    iteration: int,
    title: str,
    reference: str,
    decision: dict[str, Any],
    values_note: str,
    first: bool,
    before: list[Path],
) -> dict[str, Any]:
    """Gathers what the steps left behind and writes ``report.html``.

    ``evaluation_names`` names the policy of each folder in ``evaluations`` (several parts share one).
    ``decision`` has the fields of ``workflows.report_graph.Decision``. ``before`` are the labels of the
    iteration before, none where it is the ``first`` or they are gone.
    """
    store = Workspace(workspace)
    rows = read_snapshot(snapshot)
    attempts = {
        name: read_attempts(*(p for p, n in zip(evaluations, evaluation_names, strict=True) if n == name))
        for name in dict.fromkeys(evaluation_names)
    }
    candidate = "RECAP"
    tasks = tuple(dict.fromkeys(row.task for row in rows))
    decided = Decision(**decision)
    data = ReportData(
        iteration=iteration,
        title=title,
        robot=rows[0].robot,
        tasks=tasks,
        performances={name: performance(found) for name, found in attempts.items()},
        candidate=candidate,
        reference=reference,
        differences={
            f"{candidate} vs {name}": difference
            for name, difference in compared(attempts, candidate, reference, decided).items()
        },
        promoted=decided.promoted,
        decision=decided.reason,
        rule=decided.rule,
        looks=tuple(decided.looks),
        guards=tuple(decided.guards),
        by_task=_by_task(attempts, tasks),
        came_in=came_in(snapshot, next(iter(before), None), advantages, first=first),
        frames=frame_rows(rows, advantages),
        thresholds=json.loads((advantages / THRESHOLDS_FILE).read_text()),
        value_quality=json.loads((advantages / QUALITY_FILE).read_text()),
        training_curves={
            name: _curve(folder) for name, folder in zip(training_names, trainings, strict=True)
        },
        value_curves=_value_curves(members),
        episodes=[store.find(row.episode_id) for row in rows],
        origins={
            "performance": _origins(evaluations),
            "advantages": _origins([advantages, dataset]),
            "values": _origins([*members, scores, advantages, gate]),
            "training": _origins(trainings),
            "value training": _origins(members),
            "data": _origins([advantages]),
            "film": _origins([film]),
        },
        steps=_origins([*trainings, *members, scores, advantages, gate, dataset, *evaluations, film]),
        film=film / FILM_FILE,
        film_caption=film_caption(
            attempts[reference], attempts[candidate], _filmed(film), (reference, candidate)
        ),
        annotators=dict(Counter(row.annotator for row in rows if row.annotator is not None)),
        gate=read_gate(gate),
        values_note=values_note,
    )
    write_report(data, out / REPORT_FILE)
    return {"report": REPORT_FILE}


def write_values_report(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    advantages: Path,
    gate: Path,
    scores: Path,
    members: list[Path],
    iteration: int,
    title: str,
) -> dict[str, Any]:
    """Gathers what the value steps left behind and writes ``report.html`` about them alone."""
    store, rows = Workspace(workspace), read_snapshot(snapshot)
    data = ValuesData(
        iteration=iteration,
        title=title,
        robot=rows[0].robot,
        tasks=tuple(dict.fromkeys(row.task for row in rows)),
        note=_NOT_TRAINED,
        frames=frame_rows(rows, advantages),
        value_quality=json.loads((advantages / QUALITY_FILE).read_text()),
        episodes=[store.find(row.episode_id) for row in rows],
        origins={"values": _origins([*members, scores, advantages, gate])},
        gate=read_gate(gate),
    )
    write_values_page(data, out / REPORT_FILE)
    return {"report": REPORT_FILE}


def film_caption(
    reference: Sequence[Attempt], candidate: Sequence[Attempt], filmed: Sequence[int], names: tuple[str, str]
) -> str:
    """What the film shows: how the starts with the ``filmed`` seeds ended for the reference and candidate.

    Attempts of both are in the same order; ``names`` are theirs.
    """
    ended = {
        attempt.start_seed: (before.success, attempt.success)
        for before, attempt in zip(reference, candidate, strict=True)
    }
    counts = Counter(ended[seed] for seed in filmed if seed in ended)
    words = {
        (False, True): f"only {names[1]} solved",
        (True, True): "both solved",
        (True, False): f"only {names[0]} solved",
        (False, False): "neither solved",
    }
    said = ", ".join(
        f"{counted(counts[end], 'start')} that {word}" for end, word in words.items() if counts[end]
    )
    if not said:
        return ""
    return f"{'Chosen to show the difference' if counts[False, True] else 'Shown'}: {said}."


def frame_rows(rows: Sequence[SnapshotRow], advantages: Path) -> pd.DataFrame:
    """One row a frame, with the columns that the report needs."""
    columns = episode_columns(advantages)
    parts = []
    for row in rows:
        arrays = columns[row.episode_id]
        part = pd.DataFrame(
            {
                "frame": arrays["frame"],
                "source": arrays["source"],
                "value": arrays["value"],
                "advantage": arrays["advantage"],
                "return_": arrays["return"],
                "indicator": arrays["indicator"],
                "reason": [Reason(code).name.lower() for code in arrays["reason"]],
            }
        )
        part["episode_id"], part["task"], part["operator"] = row.episode_id, row.task, row.operator
        part["outcome"] = row.outcome
        parts.append(part)
    return pd.concat(parts, ignore_index=True)[list(FRAME_COLUMNS)]


def _by_task(
    attempts: Mapping[str, list[Attempt]], tasks: Sequence[str]
) -> dict[str, dict[str, Performance]]:
    """What each policy did on each task."""
    found: dict[str, dict[str, Performance]] = {}
    for task in tasks:
        for name, made in attempts.items():
            of_task = [attempt for attempt in made if attempt.task == task]
            if of_task:
                found.setdefault(task, {})[name] = performance(of_task)
    return found


def _value_curves(members: Sequence[Path]) -> dict[str, list[tuple[int, float]]]:
    """Losses of the value models by what they are of, the mean over the models that noted that step."""
    points: dict[str, dict[int, list[float]]] = {}
    for member in members:
        for name, step, value in read_curves(checkpoint_of(member) / CURVES_NAME):
            if name.startswith(_LOSSES):
                points.setdefault(name.removeprefix(_LOSSES), {}).setdefault(step, []).append(value)
    return {
        name: [(step, float(np.mean(values))) for step, values in sorted(by_step.items())]
        for name, by_step in points.items()
    }


def _curve(folder: Path) -> list[tuple[int, float]]:
    record = json.loads((folder / CHECKPOINT / TRAINING_FILE).read_text())
    return [(int(step), float(loss)) for step, loss in record["loss_curve"]]


def _filmed(film: Path) -> list[int]:
    """The seeds of the starts that a film shows."""
    return [int(seed) for seed in json.loads((film / MANIFEST).read_text())["result"]["starts"]]


def _origins(folders: Sequence[Path]) -> list[StepOrigin]:
    origins = []
    for folder in folders:
        manifest = json.loads((folder / MANIFEST).read_text())
        name, key = manifest["name"], manifest["key"]
        origins.append(StepOrigin(name, key, f"steps/{name}/{key}", float(np.round(manifest["seconds"], 1))))
    return origins
