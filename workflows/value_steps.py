"""The durable steps between labels and prompts: value models, scores, advantages, datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import Failure
from pipeline.frame_cache import FrameCache
from pipeline.frame_scores import ScoreWriter, read_scores
from pipeline.frame_table import FrameTable
from pipeline.label_snapshot import read_snapshot
from pipeline.workspace import Workspace
from value_model.advantages import AdvantageConfig, FrameAdvantages, label_frames
from value_model.returns import TaskScale, present_units
from workflows.array_files import read_arrays
from workflows.json_documents import read_json
from workflows.snapshot_table import snapshot_outcomes, snapshot_table
from workflows.step_files import (
    ADVANTAGES_FILE,
    CHECKPOINT,
    DATASET,
    PENALTY_FILE,
    QUALITY_FILE,
    THRESHOLDS_FILE,
    UNITS_FILE,
    VALUES_FILE,
)
from workflows.step_resume import resume_path

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
    workers: int = 1,
) -> dict[str, Any]:
    """Trains one member of the value ensemble on the episodes outside its fold.

    A training that was killed goes on where it last looked at its validation episodes.
    """
    from value_model.training_config import ValueTrainingConfig
    from workflows.value_training import train_member

    # Processes that train together map the images again, each for itself.
    table, rows = snapshot_table(workspace, snapshot, image_size, preload=workers == 1)
    config = ValueTrainingConfig.from_parameters(training)
    result = train_member(
        table,
        snapshot_outcomes(rows),
        config,
        fold,
        member,
        out / CHECKPOINT,
        progress,
        resume=resume_path(out.parent.parent, step_key(out)),
        workers=workers,
    )
    return {"fold": fold, "member": member, "loss": result.best_loss, "steps": result.steps_done}


def score_values(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    members: list[Path],
    image_size: int,
    training: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Gives every frame of the snapshot's episodes its value, out of fold; labels have no part in it.

    What other snapshots' episodes and these models have in common was scored before and is not scored
    again (:mod:`workflows.scoring_pool`). The values are kept here too: the cache may be removed.
    """
    from value_model.checkpoint import agreed_scales, read_record
    from workflows.scoring_pool import score_workspace
    from workflows.value_ensemble import ValueEnsemble

    store = Workspace(workspace)
    ids = [row.episode_id for row in read_snapshot(snapshot)]
    ensemble = ValueEnsemble(tuple(checkpoint_of(member) for member in members), training, image_size, "")
    scales = agreed_scales([read_record(member) for member in ensemble.members])
    result = score_workspace(store, ensemble, ids, progress=progress)
    result.require_all()
    (out / UNITS_FILE).write_text(json.dumps({task: asdict(scale) for task, scale in scales.items()}))
    cache = FrameCache(store.cache, image_size)
    found = [read_scores(cache, result.run, episode_id) for episode_id in ids]
    np.savez(
        out / VALUES_FILE,
        value=np.concatenate([scores["value"] for scores in found]),
        value_spread=np.concatenate([scores["value_spread"] for scores in found]),
        length=np.array([len(scores["value"]) for scores in found]),
        episode_ids=np.array(ids),
    )
    return {
        "run": result.run,
        "scored": result.scored,
        "reused": result.reused,
        "frames": result.frames,
        "workers": result.workers,
    }


def compute_advantages(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    scores: Path,
    image_size: int,
    training: dict[str, Any],
    advantage: dict[str, Any],
) -> dict[str, Any]:
    """Turns values and labels into advantages, thresholds and indicators, and measures the values.

    Values of models that were trained under other labels are brought into the unit of the present returns.
    Whether they can be trusted is asked by another step (:mod:`workflows.value_judgement`).
    """
    from value_model.calibration import measure_quality
    from value_model.training_config import ValueTrainingConfig
    from workflows.rival_values import write_rivals

    table, rows = snapshot_table(workspace, snapshot, image_size, preload=False)
    outcomes = snapshot_outcomes(rows)
    config = ValueTrainingConfig.from_parameters(training)
    penalty, factors = present_units(table, outcomes, config.failure_penalty, _units_of(scores))
    config = replace(config, failure_penalty=penalty)
    values, spread = _values_of(scores, table)
    values, spread = np.clip(values * factors, -1.0, 0.0), spread * factors
    labelled = label_frames(table, values, outcomes, penalty, AdvantageConfig(**advantage))
    np.savez(
        out / ADVANTAGES_FILE,
        value=values,
        value_spread=spread,
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
    (out / PENALTY_FILE).write_text(json.dumps(penalty))
    rivals = write_rivals(out, table, outcomes, config)
    quality = measure_quality(table, values, outcomes, penalty, labelled.indicators, rivals)
    (out / QUALITY_FILE).write_text(quality.to_json())
    _publish(FrameCache(Workspace(workspace).cache, image_size), out, table, values, spread, labelled)
    return {"correlation": quality.correlation, "thresholds": labelled.thresholds}


def build_episode_dataset(
    out: Path, *, workspace: Path, snapshot: Path, progress: Progress
) -> dict[str, Any]:
    """Writes the LeRobotDataset v3 of the snapshot's labelled episodes, with bare tasks."""
    from pipeline.lerobot_dataset import export_dataset

    store = Workspace(workspace)
    outcomes = snapshot_outcomes(read_snapshot(snapshot))
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
    counted = read_json(view / "meta/info.json")
    return {"episodes": counted["total_episodes"], "frames": counted["total_frames"]}


def episode_columns(advantages: Path) -> dict[str, dict[str, np.ndarray]]:
    """An advantage step's arrays by episode id, then name: value, advantage, return, indicator, …"""
    columns = read_arrays(advantages / ADVANTAGES_FILE)
    columns["return"] = columns.pop("returns")
    ids, episode = columns.pop("episode_ids").tolist(), columns.pop("episode")
    return {
        episode_id: {name: column[episode == i] for name, column in columns.items()}
        for i, episode_id in enumerate(ids)
    }


def checkpoint_of(member: Path) -> Path:
    """The checkpoint's folder within a training step's, or the folder itself where no step made it."""
    inside = member / CHECKPOINT
    return inside if inside.is_dir() else member


def _values_of(scores: Path, table: FrameTable) -> tuple[np.ndarray, np.ndarray]:
    """The values and spreads that a scoring step has for the table's frames, float32 ``(N,)`` each.

    Raises ``Failure`` where they are of other frames: an episode was recorded anew in between.
    """
    stored = read_arrays(scores / VALUES_FILE)
    same = stored["episode_ids"].tolist() == table.episode_ids
    if not same or not np.array_equal(stored["length"], table.lengths):
        raise Failure(
            "the episodes' frames are not those that were scored, they have been changed meanwhile: "
            f"remove {scores} and try again"
        )
    return stored["value"], stored["value_spread"]


def _units_of(scores: Path) -> dict[str, TaskScale]:
    """What the values of a scoring step are multiples of, by task; empty where the models did not say."""
    found: dict[str, dict[str, float]] = read_json(scores / UNITS_FILE)
    return {task: TaskScale(**scale) for task, scale in found.items()}


def _publish(
    cache: FrameCache,
    out: Path,
    table: FrameTable,
    values: np.ndarray,
    spread: np.ndarray,
    labelled: FrameAdvantages,
) -> None:
    """Puts each episode's scores beside its cached frames, under the step's key as the scoring run."""
    with ScoreWriter(cache, scoring_run(out)) as writer:
        for i, episode_id in enumerate(table.episode_ids):
            rows = table.frames_of(i)
            scores = {"value": values[rows], "value_spread": spread[rows]}
            if np.isfinite(labelled.advantages[rows]).all():
                scores["advantage"] = labelled.advantages[rows]
            writer.publish(episode_id, scores)


def scoring_run(out: Path) -> str:
    """The name of a scoring run: the first part of the key of its step."""
    return step_key(out)[:16]


def step_key(out: Path) -> str:
    """A step's key, from the name of its (perhaps partial) folder."""
    return out.name.strip(".").split(".")[0]
