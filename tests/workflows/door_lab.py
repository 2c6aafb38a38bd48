"""A workspace with a few labelled episodes and their advantages, as ``recap policy train`` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.episode import Source
from pipeline.frame_cache import FrameCache
from pipeline.label_snapshot import read_snapshot
from pipeline.label_types import Mark
from pipeline.labels import LabelStore
from pipeline.prompts import NEGATIVE, POSITIVE
from pipeline.workspace import Workspace
from tests.tiny_episodes import TASK, EpisodeMaker
from workflows.step_files import ADVANTAGES_FILE
from workflows.step_recipe import ExternalInput, Step
from workflows.step_store import StepStore
from workflows.turn_labels import freeze_labels

IMAGE_SIZE = 32
DRIVER = "fine_tune_recap/0123456789abcdef0123456789abcdef"


def make_lab(root: Path, marks: Sequence[tuple[Mark, ...]] = ((),) * 4) -> Workspace:
    """Four labelled episodes, two of which a policy drove, one of them corrected twice; their advantages.

    ``marks``: what the annotator marked in each.
    """
    workspace = Workspace(root).create()
    make = EpisodeMaker(workspace)
    policy, person = Source.POLICY, Source.INTERVENTION
    make(TASK, [Source.TELEOP] * 6)
    make(TASK, [Source.TELEOP] * 5)
    make(TASK, [policy, policy, person, person, policy, person], policy_checkpoint=DRIVER)
    make(TASK, [policy] * 5, policy_checkpoint=DRIVER)
    entries = workspace.list_episodes()
    with LabelStore(workspace.labels_path) as store:
        store.sync((entry.id, entry.info.task) for entry in entries)
        for i, entry in enumerate(entries):
            store.set(entry.id, ("success", "failure")[i % 2], "ann", marks=marks[i])
    snapshot = freeze_labels(workspace, [entry.id for entry in entries])
    inputs = {
        "workspace": ExternalInput(workspace.root, "workspace"),
        "snapshot": ExternalInput(snapshot.path, snapshot.digest),
    }
    step = Step("advantages", write_advantages, {"image_size": IMAGE_SIZE}, inputs)
    store_of_steps = StepStore(workspace.steps)
    store_of_steps.execute(store_of_steps.call(step), lambda *_: None)
    return workspace


def write_advantages(out: Path, *, workspace: Path, snapshot: Path, image_size: int) -> dict[str, Any]:
    """Positive and negative in turn."""
    rows = read_snapshot(snapshot)
    store = Workspace(workspace)
    FrameCache(store.cache, image_size).build_many(
        [store.episode_path(row.task, row.episode_id) for row in rows]
    )
    frames = sum(row.length for row in rows)
    indicator = np.resize(np.array([POSITIVE, NEGATIVE], dtype=np.int8), frames)
    np.savez(
        out / ADVANTAGES_FILE, indicator=indicator, episode_ids=np.array([row.episode_id for row in rows])
    )
    return {}
