"""The durable steps between labels and prompts: value models, scores, advantages, datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.frame_cache import FrameCache, publish_scores
from pipeline.frame_table import FrameTable
from pipeline.label_snapshot import SnapshotRow
from pipeline.workspace import Workspace
from value_model.advantages import AdvantageConfig, FrameAdvantages, label_frames
from value_model.returns import usable_outcomes
from workflows.snapshot_table import snapshot_table
from workflows.step_files import ADVANTAGES_FILE, CHECKPOINT, DATASET, QUALITY_FILE, THRESHOLDS_FILE

Progress = Callable[[int, int], None]


def train_value_member(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    image_size: int,
    fold: int,
    member: int,
    training: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Trains one member of the value ensemble on the episodes outside its fold."""
    from value_model.training import ValueTrainingConfig, train_fold

    table, rows = snapshot_table(workspace, snapshot, image_size)
    config = ValueTrainingConfig(**training)
    result = train_fold(table, _outcomes(rows), config, fold, member, out / CHECKPOINT, progress)
    return {"fold": fold, "member": member, "loss": result.best_loss, "steps": result.steps_done}


def score_and_label(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    members: list[Path],
    image_size: int,
    training: dict[str, Any],
    advantage: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Scores every frame out of fold and turns values into advantages, thresholds and indicators."""
    from value_model.calibration import measure_quality
    from value_model.checkpoint import read_record
    from value_model.scoring import score
    from value_model.training import ValueTrainingConfig

    table, rows = snapshot_table(workspace, snapshot, image_size)
    outcomes = _outcomes(rows)
    config = ValueTrainingConfig(**training)
    folders = [member / CHECKPOINT for member in members]
    records = [(read_record(folder).fold, read_record(folder).member, folder) for folder in folders]
    values = score(table, records, config, progress)
    labelled = label_frames(table, values, outcomes, config.failure_penalty, AdvantageConfig(**advantage))
    np.savez(
        out / ADVANTAGES_FILE,
        value=values,
        advantage=labelled.advantages,
        returns=labelled.returns,
        indicator=labelled.indicators,
        reason=labelled.reasons,
        frame=table.frame_index,
        source=table.source,
        episode=table.episode_index,
        episode_ids=np.array(table.episode_ids),
    )
    (out / THRESHOLDS_FILE).write_text(json.dumps(labelled.thresholds, indent=1))
    quality = measure_quality(table, values, outcomes, config.failure_penalty, labelled.indicators)
    (out / QUALITY_FILE).write_text(quality.to_json())
    _publish(FrameCache(Workspace(workspace).cache, image_size), out, table, values, labelled)
    return {"correlation": quality.correlation, "thresholds": labelled.thresholds}


def build_episode_dataset(
    out: Path, *, workspace: Path, snapshot: Path, progress: Progress
) -> dict[str, Any]:
    """Writes the LeRobotDataset v3 of the snapshot's labelled episodes, with bare tasks."""
    from pipeline.label_snapshot import read_snapshot
    from pipeline.lerobot_dataset import export_dataset

    store = Workspace(workspace)
    outcomes = _outcomes(read_snapshot(snapshot))
    entries = [store.find(episode_id) for episode_id, outcome in outcomes.items() if outcome is not None]
    export_dataset(
        entries,
        out / DATASET,
        outcomes=outcomes,
        # Videos are encoded once and linked into every iteration's dataset.
        video_store=store.cache / "videos",
        # The runner gives each step a core of its own.
        workers=1,
        progress=progress,
    )
    return {"episodes": len(entries), "frames": sum(entry.length for entry in entries)}


def build_conditioned_dataset(
    out: Path, *, episodes: Path, advantages: Path, indicator_dropout: float, seed: int
) -> dict[str, Any]:
    """Writes the advantage-conditioned view of the episodes' dataset; reads no recorded episode."""
    from pipeline.conditioned_view import make_view

    columns = episode_columns(advantages)
    view = make_view(
        episodes / DATASET,
        {episode_id: found["indicator"] for episode_id, found in columns.items()},
        out / DATASET,
        indicator_dropout=indicator_dropout,
        seed=seed,
        extra_columns={
            name: {episode_id: found[name] for episode_id, found in columns.items()}
            for name in ("value", "advantage", "return")
        },
    )
    counted = json.loads((view / "meta/info.json").read_text())
    return {"episodes": counted["total_episodes"], "frames": counted["total_frames"]}


def episode_columns(advantages: Path) -> dict[str, dict[str, np.ndarray]]:
    """An advantage step's arrays by episode id, then name: value, advantage, return, indicator, …"""
    with np.load(advantages / ADVANTAGES_FILE) as stored:
        columns = {name: stored[name] for name in stored.files}
    columns["return"] = columns.pop("returns")
    ids, episode = columns.pop("episode_ids").tolist(), columns.pop("episode")
    return {
        episode_id: {name: column[episode == i] for name, column in columns.items()}
        for i, episode_id in enumerate(ids)
    }


def _outcomes(rows: list[SnapshotRow]) -> dict[str, str | None]:
    return usable_outcomes(
        {row.episode_id: row.outcome for row in rows}, [row.episode_id for row in rows if row.truncated]
    )


def _publish(
    cache: FrameCache, out: Path, table: FrameTable, values: np.ndarray, labelled: FrameAdvantages
) -> None:
    """Puts each episode's scores beside its cached frames, under the step's key as the scoring run."""
    run = scoring_run(out)
    for i, episode_id in enumerate(table.episode_ids):
        rows = table.frames_of(i)
        scores = {"value": values[rows]}
        if np.isfinite(labelled.advantages[rows]).all():
            scores["advantage"] = labelled.advantages[rows]
        publish_scores(cache, run, episode_id, scores)


def scoring_run(out: Path) -> str:
    """The name of a scoring run: the first part of the key in its step's (perhaps partial) folder name."""
    return out.name.strip(".").split(".")[0][:16]
