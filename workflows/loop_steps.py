"""The loop's durable steps, as plain functions: each reads finished inputs and writes into ``out``.

A step may run again after a kill, so everything here is repeatable: episodes that exist are kept,
cache entries that exist are reused, and nothing outside ``out`` is overwritten. Heavy libraries are
imported inside the functions: the driver only needs their names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame_subtasks import labelled_subtasks
from workflows.array_files import read_arrays
from workflows.policy_training_step import labelled_frames, preloads, train_into
from workflows.snapshot_table import snapshot_table
from workflows.step_files import ADVANTAGES_FILE, CHECKPOINT
from workflows.step_resume import resume_path

if TYPE_CHECKING:
    pass

Progress = Callable[[int, int], None]


def record_session(
    out: Path,
    *,
    workspace: Path,
    session: dict[str, Any],
    part: tuple[int, int],
    progress: Progress,
    checkpoint: Path | None = None,
    checkpoint_name: str | None = None,
) -> dict[str, Any]:
    """Records part of a scripted person's session into the workspace; the result lists the episodes."""
    from collectors.simulated_sessions import SessionConfig, run_session
    from pipeline.workspace import Workspace

    config = SessionConfig(**{**session, "tasks": tuple(session["tasks"])})
    folder = checkpoint / CHECKPOINT if checkpoint is not None else None
    episodes = run_session(
        Workspace(workspace), config, folder, checkpoint_name, (part[0], part[1]), progress
    )
    return {"episodes": episodes}


def cache_frames(
    out: Path, *, workspace: Path, snapshot: Path, image_size: int, part: tuple[int, int], progress: Progress
) -> dict[str, Any]:
    """Decodes and resizes every frame of part of the snapshot's episodes, once.

    Whichever part ends last evicts what the cache has no room for, never an episode of the snapshot.
    """
    from pipeline.cache_budget import allowed_bytes, trim
    from pipeline.frame_cache import FrameCache
    from pipeline.label_snapshot import read_snapshot
    from pipeline.site_config import load_site_config
    from pipeline.workspace import Workspace

    store = Workspace(workspace)
    cache = FrameCache(store.cache, image_size)
    everything = read_snapshot(snapshot)
    rows = everything[part[0] :: part[1]]
    with cache.held():
        cache.build_many([store.episode_path(row.task, row.episode_id) for row in rows], progress=progress)
    budget = allowed_bytes(cache.root, load_site_config(store.config_path).cache.max_gib)
    used = [cache.folder(row.episode_id) for row in everything if cache.has(row.episode_id)]
    trim(cache.root, budget, keep=used)
    return {"episodes": len(rows), "frames": sum(row.length for row in rows)}


def train_base(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    image_size: int,
    training: dict[str, Any],
    progress: Progress,
    weights: Path | None = None,
    option_folders: Sequence[Path] = (),
) -> dict[str, Any]:
    """Trains the base policy on every demonstration, with the bare task as its prompt.

    From scratch, or from the LeRobot checkpoint in the folder ``weights``. ``option_folders`` are those that
    the policy's options name: inputs, so that what is in them counts.
    """
    from pipeline.prompts import NONE

    if weights is not None:
        training = {**training, "policy_options": {**training["policy_options"], "path": str(weights)}}
    table, rows = snapshot_table(workspace, snapshot, image_size, preload=preloads(training))
    indicators = np.full(len(table.episode_index), NONE, np.int8)
    subtasks = labelled_subtasks(table, rows)
    return train_into(out, table, indicators, training, None, None, progress, subtasks)


def fine_tune_recap(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    base: Path,
    advantages: Path,
    image_size: int,
    training: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Fine-tunes the base on all labelled data, good and bad, with the advantage in the prompt (RECAP)."""
    table, rows = snapshot_table(workspace, snapshot, image_size, preload=preloads(training))
    indicators = read_arrays(advantages / ADVANTAGES_FILE)["indicator"]
    mask, subtasks = labelled_frames(table, rows), labelled_subtasks(table, rows)
    return train_into(out, table, indicators, training, base / CHECKPOINT, mask, progress, subtasks)


def fine_tune_filtered(
    out: Path,
    *,
    workspace: Path,
    snapshot: Path,
    base: Path,
    image_size: int,
    training: dict[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """Fine-tunes the base on successes, and on corrections of any labelled episode (filtered BC)."""
    from pipeline.episode import Outcome, Source
    from pipeline.prompts import NONE

    table, rows = snapshot_table(workspace, snapshot, image_size, preload=preloads(training))
    succeeded = np.array([row.outcome == Outcome.SUCCESS for row in rows])
    mask = succeeded[table.episode_index] | (table.source == Source.INTERVENTION)
    mask &= labelled_frames(table, rows)
    indicators = np.full(len(table.episode_index), NONE, np.int8)
    subtasks = labelled_subtasks(table, rows)
    return train_into(out, table, indicators, training, base / CHECKPOINT, mask, progress, subtasks)


def evaluate_policy(
    out: Path,
    *,
    checkpoint: Path,
    evaluation: dict[str, Any],
    part: tuple[int, int],
    progress: Progress,
) -> dict[str, Any]:
    """Runs a checkpoint on part of a round of starts; one that was killed goes on where it was."""
    from workflows.evaluation import EvaluationConfig, evaluate, write_attempts
    from workflows.value_steps import step_key

    config = EvaluationConfig.from_parameters(evaluation)
    # The store removes it when the step is published.
    kept = resume_path(out.parent.parent, step_key(out), ".jsonl")
    attempts = evaluate(checkpoint / CHECKPOINT, config, (part[0], part[1]), progress, kept)
    write_attempts(attempts, out)
    return {
        "attempts": len(attempts),
        "successes": sum(a.success for a in attempts),
        "interventions": sum(a.interventions for a in attempts),
    }
