"""What the design-space benchmark trains on: demonstrations by scripted people, in the simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from collectors.simulated_sessions import SessionConfig, run_session
from pipeline.frame_cache import FrameCache
from pipeline.frame_subtasks import FrameSubtasks
from pipeline.frame_table import FrameTable
from pipeline.prompts import NEGATIVE, POSITIVE
from pipeline.workspace import Workspace
from tests.benchmarks.design_space_rows import SUBTASKS

TASKS = ("pick up the red cube", "pick up the blue cube")
IMAGE_SIZE = 84
_CLOSING = 0.5  # a gripper target above it closes the gripper


def demonstrations(folder: Path, each: int) -> tuple[FrameTable, np.ndarray]:
    """Frames of ``each`` skilled and ``each`` sloppy episodes, recorded into ``folder`` where they lack.

    The indicators (N,) int8 call the skilled person's frames positive and the sloppy one's negative.
    """
    workspace = Workspace(folder).create()
    ids: dict[str, list[str]] = {}
    for seed, person in enumerate(("skilled", "sloppy")):
        session = SessionConfig(f"design-{person}", person, each, TASKS, seed, 500_000 + 10_000 * seed)
        ids[person] = run_session(workspace, session)
    everything = [*ids["skilled"], *ids["sloppy"]]
    cache = FrameCache(workspace.cache, IMAGE_SIZE)
    cache.build_many([workspace.find(episode_id).path for episode_id in everything])
    table = FrameTable.load(cache, everything, preload=True)
    sloppy = table.episode_index >= len(ids["skilled"])
    return table, np.where(sloppy, NEGATIVE, POSITIVE).astype(np.int8)


def subtasks_of(table: FrameTable) -> FrameSubtasks:
    """Which of ``SUBTASKS`` each frame belongs to: the first until the gripper closes, then the second."""
    codes = np.zeros(len(table), dtype=np.int16)
    for episode in range(len(table.episode_ids)):
        frames = table.frames_of(episode)
        codes[frames] = np.maximum.accumulate(table.action[frames, -1] > _CLOSING)
    return FrameSubtasks(tuple(SUBTASKS), codes)
