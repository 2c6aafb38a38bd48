"""Gathers what an iteration's steps left behind and writes its report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.label_snapshot import SnapshotRow, read_snapshot
from pipeline.workspace import Workspace
from value_model.advantages import Reason
from workflows.comparison import paired_difference, performance
from workflows.evaluation import read_attempts
from workflows.report import (
    FRAME_COLUMNS,
    ReportData,
    StepOrigin,
    ValuesData,
    write_report,
    write_values_page,
)
from workflows.step_files import (
    CHECKPOINT,
    FILM_FILE,
    QUALITY_FILE,
    REPORT_FILE,
    THRESHOLDS_FILE,
    TRAINING_FILE,
)
from workflows.value_gate import read_gate
from workflows.value_steps import episode_columns

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
    promoted: bool,
    decision: str,
    values_note: str,
) -> dict[str, Any]:
    """Gathers what the steps left behind and writes ``report.html``.

    ``evaluation_names`` names the policy of each folder in ``evaluations`` (several parts share one).
    """
    store = Workspace(workspace)
    rows = read_snapshot(snapshot)
    attempts = {
        name: read_attempts(*(p for p, n in zip(evaluations, evaluation_names, strict=True) if n == name))
        for name in dict.fromkeys(evaluation_names)
    }
    candidate = "RECAP"
    data = ReportData(
        iteration=iteration,
        title=title,
        robot=rows[0].robot,
        tasks=tuple(dict.fromkeys(row.task for row in rows)),
        performances={name: performance(found) for name, found in attempts.items()},
        candidate=candidate,
        reference=reference,
        differences={
            f"{candidate} vs {name}": paired_difference(attempts[candidate], found)
            for name, found in attempts.items()
            if name != candidate
        },
        promoted=promoted,
        decision=decision,
        frames=frame_rows(rows, advantages),
        thresholds=json.loads((advantages / THRESHOLDS_FILE).read_text()),
        value_quality=json.loads((advantages / QUALITY_FILE).read_text()),
        training_curves={
            name: _curve(folder) for name, folder in zip(training_names, trainings, strict=True)
        },
        episodes=[store.find(row.episode_id) for row in rows],
        origins={
            "performance": _origins(evaluations),
            "advantages": _origins([advantages, dataset]),
            "values": _origins([*members, scores, advantages, gate]),
            "training": _origins(trainings),
            "data": _origins([advantages]),
        },
        steps=_origins([*trainings, *members, scores, advantages, gate, dataset, *evaluations, film]),
        film=film / FILM_FILE,
        film_caption=f"Chosen to show the difference: starts that only {candidate} solved, and one both did.",
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


def _curve(folder: Path) -> list[tuple[int, float]]:
    record = json.loads((folder / CHECKPOINT / TRAINING_FILE).read_text())
    return [(int(step), float(loss)) for step, loss in record["loss_curve"]]


def _origins(folders: Sequence[Path]) -> list[StepOrigin]:
    origins = []
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text())
        name, key = manifest["name"], manifest["key"]
        origins.append(StepOrigin(name, key, f"steps/{name}/{key}", float(np.round(manifest["seconds"], 1))))
    return origins
