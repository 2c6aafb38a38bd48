"""The data of :mod:`tests.benchmarks.value_quality`: recorded, labelled and cached as the loop does it.

Scripted people demonstrate, a base policy is trained on that and rolled out alone, a scripted annotator
labels everything through the label store. The dropped cubes are a person's of their own, in scenes of their
own, and nothing is ever trained on them.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collectors.clumsy_operator import Drop
from collectors.simulated_sessions import AnnotatorNotes
from pipeline.frame_table import FrameTable
from pipeline.label_snapshot import Snapshot, freeze
from pipeline.labels import LabelStore
from pipeline.workspace import Workspace
from value_model.returns import usable_outcomes
from workflows import loop_steps
from workflows.recording_settings import PICK_TASKS
from workflows.simulated_labelling import label_from_notes
from workflows.snapshot_table import snapshot_table

IMAGE_SIZE = 84
PROCESSES = 2
SCENES = {"skilled": 0, "sloppy": 100_000, "observer": 200_000, "clumsy": 400_000}
CLUMSY = "clumsy"


@dataclass(frozen=True)
class Size:
    """How many episodes of each kind there are, and how long the policy that is rolled out was trained."""

    skilled: int
    sloppy: int
    autonomous: int
    clumsy: int
    policy_steps: int


@dataclass(frozen=True)
class QualityData:
    """``table`` are the frames to train on and to value out of fold; ``planted`` those of the clumsy person.

    ``operators``: who recorded each of the table's episodes; ``scenes``: the seed of its scene, by its id.
    ``drops``: by planted episode; some have none.
    """

    table: FrameTable
    outcomes: dict[str, str | None]
    operators: list[str]
    scenes: dict[str, int]
    planted: FrameTable
    planted_outcomes: dict[str, str | None]
    drops: dict[str, Drop]


def worker_pool() -> ProcessPoolExecutor:
    """Two fresh processes of one thread each: with threads torch gives other sums, and no more speed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"))


def make_data(root: Path, size: Size, pool: ProcessPoolExecutor) -> QualityData:
    """Records, trains the policy, rolls it out, labels, and decodes everything below ``root``."""
    workspace = Workspace(root).create()
    _all(
        _session(pool, workspace, person, episodes)
        for person, episodes in (("skilled", size.skilled), ("sloppy", size.sloppy))
    )
    base = pool.submit(_train_base, root / "base", root, _snapshot(workspace, ()).path, size.policy_steps)
    clumsy = _session(pool, workspace, CLUMSY, size.clumsy)
    base.result()
    _all([_session(pool, workspace, "observer", size.autonomous, root / "base"), clumsy])
    table, outcomes, operators = _table(workspace, _snapshot(workspace, (CLUMSY,)))
    left_out = tuple(person for person in SCENES if person != CLUMSY)
    planted, planted_outcomes, _ = _table(workspace, _snapshot(workspace, left_out))
    drops = AnnotatorNotes(workspace).drops()
    scenes = {entry.id: int(entry.info.extra["scene_seed"]) for entry in workspace.list_episodes()}
    return QualityData(table, outcomes, operators, scenes, planted, planted_outcomes, drops)


def _all(sessions: Iterable[list[Future[Any]]]) -> None:
    for session in list(sessions):
        for part in session:
            part.result()


def _session(
    pool: ProcessPoolExecutor, workspace: Workspace, person: str, episodes: int, base: Path | None = None
) -> list[Future[Any]]:
    """One person's session, in as many parts as there are processes."""
    session = {
        "name": person,
        "person": person,
        "episodes": episodes,
        "tasks": PICK_TASKS,
        "seed": 0,
        "first_scene_seed": SCENES[person],
        "image_size": IMAGE_SIZE,
    }
    name = None if base is None else "base"
    return [
        pool.submit(_record, workspace.root, session, (k, PROCESSES), base, name) for k in range(PROCESSES)
    ]


def _record(
    root: Path, session: dict[str, Any], part: tuple[int, int], base: Path | None, name: str | None
) -> None:
    loop_steps.record_session(
        root,
        workspace=root,
        session=session,
        part=part,
        progress=_silent,
        checkpoint=base,
        checkpoint_name=name,
    )


def _train_base(out: Path, root: Path, snapshot: Path, steps: int) -> None:
    out.mkdir()
    training = {"steps": steps, "learning_rate": 1e-3, "seed": 0, "indicator_dropout": 0.0}
    loop_steps.train_base(
        out, workspace=root, snapshot=snapshot, image_size=IMAGE_SIZE, training=training, progress=_silent
    )


def _snapshot(workspace: Workspace, left_out: tuple[str, ...]) -> Snapshot:
    """The labels of all episodes but those of the people left out."""
    people = {f"scripted {person}" for person in left_out}
    entries = [entry for entry in workspace.list_episodes() if entry.info.operator not in people]
    label_from_notes(workspace, [entry.id for entry in entries], {e.id: e.info.task for e in entries})
    with LabelStore(workspace.labels_path) as store:
        return freeze(store, entries, workspace.root)


def _table(workspace: Workspace, snapshot: Snapshot) -> tuple[FrameTable, dict[str, str | None], list[str]]:
    table, rows = snapshot_table(workspace.root, snapshot.path, IMAGE_SIZE)
    outcomes = usable_outcomes({row.episode_id: row.outcome for row in rows})
    return table, outcomes, [row.operator.removeprefix("scripted ") for row in rows]


def _silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


def lift_frames(table: FrameTable, episode: int, height: float) -> int | None:
    """The frame of the episode's last lift at which the tool passes ``height`` (m) above its grasp.

    From the recorded tool pose alone; ``None`` where it ends below.
    """
    from collectors.scripted_motion import GRASP_HEIGHT
    from pipeline.episode import POLICY_STATE_NAMES

    tool_z = table.state[table.frames_of(episode), POLICY_STATE_NAMES.index("tool.z")]
    below = np.flatnonzero(tool_z < GRASP_HEIGHT + height)
    if len(below) == 0 or below[-1] + 1 >= len(tool_z):
        return None
    return int(below[-1]) + 1
